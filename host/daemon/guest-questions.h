#pragma once
// GuestQuestions: what guests ask for: a channel to a service of another VM or of the host. Decides by the identity
// that the asking VM's session process stands for and by nothing else; reaches the target; hands out the asking
// session's end of the way, under the terms that count at that moment.
//
// A question is judged; then the asking session takes the channel's place at its limits; then the target is reached;
// and what is allowed is judged again.
//
// Guarantees: nothing is reached for what policy or a limit refuses; what is handed out was allowed when it was handed
// out, whatever the reaching took; a guest is told yes or no, and everything else goes to the audit, the events and the
// ports' counters; a VM has at most MAX_QUESTIONS under way, each over within QUESTION_DEADLINE; a question that is
// given up leaves nothing behind. One loop.

#include <kj/async-unix.h>
#include <kj/refcount.h>

#include "host/daemon/channel-records.h"
#include "host/daemon/channel-vm.h"
#include "host/daemon/decisions.h"
#include "host/daemon/host-services.h"
#include "host/daemon/live-channels.h"
#include "host/daemon/service-terms.h"
#include "host/session/token-bucket.h"

namespace postern::host {

// Under way at a time, of one VM: as many as its session lets its guest have (session-control.capnp).
constexpr unsigned MAX_QUESTIONS = 256;
// Channels that a VM's guest may begin under rules without `calls`: each is two lines of the audit log. At once as
// many as may live.
constexpr unsigned OPENS_PER_SECOND = 50;
constexpr unsigned OPENS_BURST = MAX_CHANNELS_PER_VM;
// For another VM's session, which waits for its guest's target.
constexpr auto QUESTION_DEADLINE = SERVICE_CONNECT_DEADLINE + 3 * kj::SECONDS;
// For the asking session to say whether its limits let the channel in.
constexpr auto ENTRANCE_DEADLINE = 2 * kj::SECONDS;

class GuestQuestions {
 public:
  struct Environment {
    kj::UnixEventPort& port;
    const Decisions& decisions;
    HostServices& services;
    Mirrors& mirrors;
    ChannelRecords& records;
    LiveChannels& live;
    FindVm& find;
  };
  // Everything outlives this.
  explicit GuestQuestions(const Environment& environment) : environment(environment) {}
  KJ_DISALLOW_COPY(GuestQuestions);

  // Asked for, allowed and reached. Not yet a channel; dropping it ends what was reached.
  class Prospect;
  // Null: refused, and recorded. `vm` need not outlive the promise.
  kj::Promise<kj::Maybe<kj::Own<Prospect>>> ask(ChannelVm& vm, ChannelQuestion question);
  // Of a VM that goes.
  void forget(kj::StringPtr vm) { counts.erase(vm); }
  // One whose names are none.
  void refuseNames(ChannelVm& vm);
  // In the turn in which the answer goes out: decides again, lists the channel and records it; or refuses after all.
  void begin(ChannelVm& vm, kj::Own<Prospect> prospect, schema::SessionObserver::ConnectResults::Builder answer);

 private:
  // How many of a VM's are under way. Shared with those, since a call that is cancelled may be destroyed last of all.
  struct Count final : public kj::Refcounted {
    unsigned underWay = 0;
    TokenBucket opens{OPENS_PER_SECOND, OPENS_BURST};
  };
  class Slot;
  struct Denied {
    GuestDenial denial;
    bool byPolicy;
    kj::String detail{};
  };
  using Verdict = kj::OneOf<ServiceTerms, Denied>;

  const Environment environment;
  kj::HashMap<kj::String, kj::Own<Count>> counts;  // by VM

  unsigned underWay(kj::StringPtr vm) const;
  bool isRegistered(ChannelVm& vm) const;
  Verdict judge(ChannelVm& vm, const ChannelQuestion& question);
  using NotReached = HostServices::Refused;
  // Null: its place is taken.
  kj::Promise<kj::Maybe<NotReached>> enter(Prospect& prospect);
  kj::Promise<kj::Maybe<kj::Own<Prospect>>> reach(kj::Own<Prospect> prospect);
  // Null: reached. `prospect` outlives the promise.
  kj::Promise<kj::Maybe<NotReached>> askTarget(Prospect& prospect);
  kj::Promise<kj::Maybe<NotReached>> askHost(Prospect& prospect);
  kj::Promise<kj::Maybe<NotReached>> askVm(Prospect& prospect, ChannelVm& target);
  // Of a session process; also why there is none.
  kj::Promise<kj::Maybe<NotReached>> answerOf(kj::Promise<kj::Maybe<NotReached>> session, kj::Duration deadline);
  kj::Maybe<kj::Own<Prospect>> failed(const Prospect& prospect, kj::StringPtr reason, kj::String detail = nullptr);
  void refuse(kj::StringPtr vm, const ChannelQuestion& question, const Denied& denied);
};

class GuestQuestions::Prospect {
 public:
  Prospect(kj::Own<Slot> slot, kj::StringPtr vm, ChannelQuestion question, ServiceTerms terms);
  ~Prospect() noexcept(false);
  KJ_DISALLOW_COPY(Prospect);

 private:
  friend class GuestQuestions;
  kj::Own<Slot> slot;
  const kj::String vm;
  ChannelQuestion question;
  const ServiceTerms terms;
  StrangersFd socket;
  kj::Maybe<kj::Promise<void>> program;
};

}  // namespace postern::host
