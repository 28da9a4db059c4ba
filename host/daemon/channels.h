#pragma once
// Channels: all that posternd does about channels to services: answers guests' questions, keeps the list of what lives,
// decides it again and cuts it, takes over what an earlier posternd allowed, and writes it down.
//
// What is forbidden, by a new policy, a blocked port, an expired rule, a quarantine or a VM's removal, is cut, within
// 100 ms, and nothing else is (T114). One loop; owned by the Daemon.

#include "host/daemon/guest-questions.h"
#include "host/daemon/live-grants.h"

namespace postern::host {

class Channels final : private LiveChannels::Handler, private kj::TaskSet::ErrorHandler {
 public:
  struct Environment {
    kj::UnixEventPort& port;
    const Decisions& decisions;
    Records& records;
    const LiveGrants& grants;
  };
  // Everything outlives this.
  Channels(const Environment& environment, FindVm find);
  ~Channels() noexcept(false);
  KJ_DISALLOW_COPY(Channels);

  HostServices& hostServices() { return services; }
  Mirrors& mirrorSockets() { return mirrors; }

  // What guests ask (GuestQuestions).
  using Prospect = GuestQuestions::Prospect;
  kj::Promise<kj::Maybe<kj::Own<Prospect>>> ask(ChannelVm& vm, kj::Maybe<ChannelQuestion> question);
  void begin(ChannelVm& vm, kj::Own<Prospect> prospect, schema::SessionObserver::ConnectResults::Builder answer);
  LiveChannels& living() { return live; }

  // What a VM's session process says.
  void opened(ChannelVm& vm, uint64_t id, uint64_t grant, kj::StringPtr service);
  void refused(ChannelVm& vm, const ChannelRefusal& refusal);
  void closed(ChannelVm& vm, const ChannelClosing& closing);
  void adopt(ChannelVm& vm, ChannelClaims claims);
  void sessionGone(ChannelVm& vm);

  // Decides all of them again; how many were cut.
  unsigned recheck();
  // Those of this VM; `why` is static.
  unsigned cutAllOf(kj::StringPtr vm, kj::StringPtr why);
  // By whom, for the audit.
  void cutByHand(kj::StringPtr who, uint64_t id);
  // What is counted of a VM that goes.
  void forget(kj::StringPtr vm);
  // A few times a second: writes down what was counted of refusals.
  void tick(kj::TimePoint now);

 private:
  const Environment environment;
  kj::UnixEventPort& port;
  FindVm find;
  ChannelRecords records;
  HostServices services;
  Mirrors mirrors;
  LiveChannels live;
  GuestQuestions questions;
  kj::TaskSet tasks;

  void adopt(ChannelVm& vm, ChannelClaim claim);
  void confirm(ChannelEntry& known, ChannelEntry claimed);
  void adoptNew(ChannelEntry entry);
  void recheck(uint64_t id);
  kj::Maybe<kj::StringPtr> whyForbidden(const ChannelEntry& channel);

  kj::Promise<void> cutInSessions(kj::ArrayPtr<const ChannelEntry* const> channels) override;
  void channelOver(const ChannelEntry& channel, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing) override;
  void disobeyed(const ChannelEntry& channel) override;
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
