#pragma once
// Agent: what the unprivileged process does, from its start to its end: finds the host, enrols, keeps a session alive,
// and serves it. It lives on one loop that never blocks on anything but its own state file.
//
//   no bundle          waits for one
//   round              tries what Pairing gives, in its order, until one attempt makes a session
//   session            heartbeats, calls; until it ends, or until fresh keys are due, when the next session is made
//                      beside it where the transport allows
//   back-off           a host that does not answer is tried again after 0.2 s, then up to `retry`; one that
//                      refuses, up to 30 s; so is one that says that another agent has this identity
//   disk               a state file that cannot be written: tried again, like a host that refuses
//
// Each change is one line in the log; what repeats itself is told once.

#include <kj/async-unix.h>
#include <kj/map.h>

#include "guest-agent/agent/entrance.h"
#include "guest-agent/agent/guest-server.h"
#include "guest-agent/agent/live-session.h"
#include "guest-agent/agent/memory.h"
#include "protocol/limits.h"
#include "transport/backoff.h"

namespace postern::guest {

class Agent final : private Rekeying, private kj::TaskSet::ErrorHandler {
 public:
  // All that is referred to outlives the agent. `timer` goes by CLOCK_MONOTONIC; `instance` is this process's own
  // number.
  struct Parts {
    kj::UnixEventPort& port;
    kj::Timer& timer;
    BrokerClient& broker;
    Pairing& pairing;
    HeartbeatSource& heartbeats;
    const GuestServices& services;
    Consumers& consumers;
    Random& random;
    Uint128 bootId;
    Uint128 instance;
    kj::Duration retry =
        limits::CONNECT_RETRY_MAX;  // at most between two attempts to reach a host that does not answer
  };
  explicit Agent(const Parts& parts);
  ~Agent() noexcept(false);
  KJ_DISALLOW_COPY(Agent);

  // Never resolves. Fails when the broker is gone.
  kj::Promise<void> run();

  // Pairing has news: what is under way, a session too, ends and the next round begins at once.
  void keysChanged();
  // The guest is going down: tells the host.
  void guestStops(schema::Goodbye why);
  // Says goodbye and closes. run() is dropped after it.
  kj::Promise<void> stop();

  bool hasSession() const { return live != nullptr; }

 private:
  enum class Pace {
    AT_ONCE,
    NOBODY,   // nobody answered: soon again
    REFUSED,  // somebody refused: a person must mend it
  };

  using Told = kj::TreeMap<kj::StringPtr, kj::String>;  // why there is no session: each event's last text
  using Next = kj::OneOf<Pace, kj::Own<Session>>;       // after a session

  kj::Timer& timer;
  BrokerClient& broker;
  Pairing& pairing;
  HeartbeatSource& heartbeats;
  const GuestServices& services;
  Consumers& consumers;
  PatientTimer tidying;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  Links links;
  Entrance entrance;
  Backoff connectBackoff;
  Backoff refusedBackoff;

  kj::Maybe<kj::Own<LiveSession>> live;
  kj::TimePoint liveSince;
  bool renewing = false;
  bool startIsOver = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> interruption;  // of what keysChanged() may cut short
  Told told;
  kj::TaskSet tasks;

  kj::Promise<Pace> round();
  kj::Promise<Pace> makePlace();
  kj::Promise<Pace> tryFrom(kj::Vector<Pairing::Attempt> attempts, size_t index, Pace pace);
  void begin(kj::Own<Session> session);
  void settle();
  kj::Promise<Pace> serve();
  kj::Promise<SessionEnd> whenOver();
  kj::Promise<Next> renewWhenDue();
  kj::Promise<Next> renew();
  kj::Promise<Next> renewBy(kj::Vector<Pairing::Attempt> attempts, size_t index);
  Pace paceAfter(const SessionEnd& end);
  kj::Promise<void> pause(Pace pace);
  kj::Promise<void> interrupted();
  void tell(kj::StringPtr event, kj::String text);
  kj::Maybe<NotDone> rekey(const HostPublicKey& host, EnrolmentToken token) override;
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
