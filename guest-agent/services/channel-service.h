#pragma once
// ChannelService: GuestCalls.connect and services, on the agent's loop. It asks the guest's policy, takes the channel
// that the host offers, has the broker connect to the service's target or start its program, and relays the bytes
// between the two (transport/relay/relay.h).
//
// At most MAX_EXPORTED_CHANNELS at one time, of all sessions, and MAX_CALLER_CHANNELS of one caller. A channel ends
// when both its directions have, when either side resets it, when its session ends, and when a new policy or
// configuration would not open it as it is. Not with its caller: the host lets go of him once it has sent everything,
// which the target may not have taken yet, and resets the channels that it cuts.

#include <kj/async-unix.h>
#include <kj/refcount.h>

#include <map>
#include <set>
#include <string>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/verdict.h"
#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::guest {

constexpr size_t MAX_EXPORTED_CHANNELS = 2048;
constexpr size_t MAX_CALLER_CHANNELS = 1024;

// A service of this guest, as the agent knows it: where it leads is the broker's matter.
struct ExportedService {
  kj::String name;
  kj::Array<kj::byte> identity;  // the same as long as it leads to the same target in the same way
};

class ChannelService {
 public:
  class Caller;

  // Both outlive the service, which outlives every caller.
  ChannelService(BrokerClient& broker, kj::UnixEventPort& port) : broker(broker), port(port), tasks(failures) {}
  KJ_DISALLOW_COPY(ChannelService);

  // What is exported from now on; the policy may be a new one as well. Resets the channels, those too that are not yet
  // open, whose caller may not have them any more, or whose service is gone or leads elsewhere; no others.
  void reconsider(kj::Vector<ExportedService> exported);

  // For a caller of a session, which is borrowed, by the text that names him to the broker. `decide` lives as long as
  // his channels.
  kj::Own<Caller> newCaller(Session& session, kj::StringPtr callerText, Decide decide);

  size_t channels() const { return live.size(); }

 private:
  class Channel;
  struct Running;
  // Who he is and what he may, for as long as he or a channel of his is there.
  struct Rights final : public kj::Refcounted {
    Rights(kj::StringPtr text, Decide decide) : text(kj::str(text)), decide(kj::mv(decide)) {}
    const kj::String text;
    Decide decide;
    kj::Maybe<Denial> denialOf(kj::StringPtr name) { return decide(kj::str("service.", name)); }
  };
  struct Failures final : public kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&& exception) override;
  };

  BrokerClient& broker;
  kj::UnixEventPort& port;
  std::map<std::string, kj::Array<kj::byte>> exports;  // their identities, by name
  std::set<Channel*> live;
  std::map<std::string, size_t> perCaller;  // channels, by the caller's text
  Failures failures;
  kj::TaskSet tasks;  // open channels

  bool isExported(kj::StringPtr name, kj::ArrayPtr<const kj::byte> identity) const;
  void begin(kj::Own<Channel> channel, kj::Own<BulkChannel> bulk, OpenedService opened);
};

class ChannelService::Caller final {
 public:
  Caller(ChannelService& service, Session& session, kj::Own<Rights> rights);
  KJ_DISALLOW_COPY(Caller);

  // As GuestCalls says. An offer that breaks the rules of bulk channels ends the session; one above what a session has
  // room for is refused as busy.
  kj::Promise<void> connect(schema::GuestCalls::ConnectParams::Reader untrusted,
                            schema::GuestCalls::ConnectResults::Builder results);
  void services(schema::GuestCalls::ServicesResults::Builder results);

 private:
  using Outcome = kj::OneOf<OpenedService, ServiceRefusal>;

  ChannelService& service;
  Session& session;
  kj::Own<Rights> rights;

  bool isFull() const;
  kj::Promise<void> reach(kj::Own<Channel> channel, kj::Own<BulkChannel> bulk,
                          schema::GuestCalls::ConnectResults::Builder results);
};

}  // namespace postern::guest
