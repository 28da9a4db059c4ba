#pragma once
// Consumers: the [[consume]] sockets of this guest, on the agent's loop. The broker makes them (consumer-sockets.h);
// here programs' connections are taken, and each becomes a channel over the session that stands: Host.connect, and on
// success a relay. The host refuses, if it does, without a reason; the program sees its connection reset.
//
// Without a session a connection is reset at once. A consumer has at most MAX_CONSUMER_CHANNELS at one time, of which
// at most MAX_CONSUMER_QUESTIONS wait for the host's answer; further connections wait in its listen queue. A session's
// channels end with it, and a consumer's when it is gone or has become another one.

#include <kj/async-unix.h>
#include <kj/vector.h>

#include <map>
#include <string>

#include "guest-agent/log/damped-log.h"
#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::guest {

constexpr size_t MAX_CONSUMER_CHANNELS = 1024;
// Of all consumers together, so that a session always has room for what the host opens (limits::MAX_BULK_CHANNELS).
constexpr size_t MAX_CONSUMERS_CHANNELS = 1536;
// The host refuses what is above 256 questions that it has not answered: all consumers together stay below it, and one
// whose service does not answer leaves room for the others.
constexpr size_t MAX_CONSUMER_QUESTIONS = 64;
constexpr size_t MAX_CONSUMERS_QUESTIONS = 192;
// Connections that are taken, of all together: below what the host answers of one guest. More wait in their queues.
constexpr auto CONSUMER_INTERVAL = kj::SECONDS / 800;
constexpr unsigned CONSUMER_BURST = 800;
// From Host.connect to its answer. The host's own deadlines, for two sessions and a target, are well within it.
constexpr auto CONSUMER_CONNECT_DEADLINE = 30 * kj::SECONDS;

// One, as the broker tells of it.
struct ConsumerBriefing {
  kj::String listen;  // the address, for people; each consumer has one of its own
  kj::String from;
  kj::String service;
  kj::Maybe<kj::AutoCloseFd> socket;  // listening; null: the one that this agent has already
};

class Consumers {
 public:
  explicit Consumers(kj::UnixEventPort& port);
  ~Consumers() noexcept(false);
  KJ_DISALLOW_COPY(Consumers);

  // All that there are from now on. Channels of those that are gone, or are another one at their address, are reset.
  void replace(kj::Vector<ConsumerBriefing> consumers);

  // Connections go over this session until what comes back is destroyed, which is before the session and its RPC are.
  kj::Own<void> use(Session& session, schema::Host::Client host);

  size_t channels() const;   // waiting or open
  size_t questions() const;  // waiting

 private:
  class Consumer;
  // How long the next connection has to wait; 0: it is taken now.
  kj::Duration turn();
  struct Uplink {
    Session& session;
    schema::Host::Client host;
  };

  kj::UnixEventPort& port;
  kj::TimePoint taken = kj::origin<kj::TimePoint>();  // up to when turns are given away
  DampedLog denials;
  DampedLog troubles;
  kj::Maybe<kj::Own<Uplink>> uplink;
  std::map<std::string, kj::Own<Consumer>> consumers;  // by address
};

}  // namespace postern::guest
