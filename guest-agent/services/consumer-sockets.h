#pragma once
// ConsumerSockets: the sockets of [[consume]], which the broker makes with its rights and keeps as long as they are
// configured, so that an agent that is started anew finds them with what waits in their queues. What cannot be had, or
// not be handed to the agent, is one line in the log until the reason is another one; the others go on. It is tried
// again by the next configure() and brief(), which are due every CONSUMER_RETRY until isComplete().
//
// Destroying it closes them and removes the files of Unix sockets.

#include <kj/time.h>
#include <kj/vector.h>

#include <map>
#include <string>

#include "guest-agent/services/consumers.h"
#include "guest-agent/settings/services-settings.h"

namespace postern::guest {

constexpr auto CONSUMER_RETRY = 2 * kj::SECONDS;

class ConsumerSockets {
 public:
  ConsumerSockets() = default;
  ~ConsumerSockets() noexcept(false);
  KJ_DISALLOW_COPY(ConsumerSockets);

  // Opens what is new and closes what is gone; what has its address already stays open.
  void configure(kj::ArrayPtr<const ConsumerSettings> consumers);

  // For an agent: all that there are. With a socket each of those that it has not had yet; without those of them for
  // which there is no descriptor.
  kj::Vector<ConsumerBriefing> brief();
  // Whether the agent has not had one that there is.
  bool hasNews() const;
  // Whether all that are configured are there, and the agent has them.
  bool isComplete() const { return failures.empty() && !hasNews(); }
  // The next one briefed is another agent.
  void agentIsNew();

 private:
  struct Entry {
    LocalAddress address;
    kj::AutoCloseFd socket;
    kj::String from;
    kj::String service;
    mode_t mode;
    bool briefed = false;
  };
  std::map<std::string, Entry> entries;         // by address
  std::map<std::string, std::string> failures;  // why there is none, or none that the agent has; by address

  void close(const std::string& key);
  void open(const std::string& key, const ConsumerSettings& consumer);
  void failed(const std::string& key, kj::String why);
  static void update(Entry& entry, const ConsumerSettings& consumer);
};

}  // namespace postern::guest
