#pragma once
// ConsumerSockets: the sockets of [[consume]], which the broker makes with its rights and keeps as long as they are
// configured, so that an agent that is started anew finds them with what waits in their queues. What cannot be had is
// one line in the log and tried again at the next reload; the others go on.
//
// Destroying it closes them and removes the files of Unix sockets.

#include <kj/vector.h>

#include <map>
#include <string>

#include "guest-agent/services/consumers.h"
#include "guest-agent/settings/services-settings.h"

namespace postern::guest {

class ConsumerSockets {
 public:
  ConsumerSockets() = default;
  ~ConsumerSockets() noexcept(false);
  KJ_DISALLOW_COPY(ConsumerSockets);

  // Opens what is new and closes what is gone; what has its address already stays open.
  void configure(kj::ArrayPtr<const ConsumerSettings> consumers);

  // For an agent: all that there are. With a socket each of those that it has not had yet.
  kj::Vector<ConsumerBriefing> brief();
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
  std::map<std::string, Entry> entries;  // by address

  void close(const std::string& key);
  void open(const std::string& key, const ConsumerSettings& consumer);
  static void update(Entry& entry, const ConsumerSettings& consumer);
};

}  // namespace postern::guest
