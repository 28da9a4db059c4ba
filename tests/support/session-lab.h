#pragma once
// SessionLab: a guest and a host on one event loop, joined by a FakeWire, with a hand-turned clock, real keys and the
// real protocol between them. Tests take it apart as they need.

#include <kj/async.h>
#include <kj/timer.h>

#include "protocol/establish.h"
#include "protocol/read-scratch.h"
#include "protocol/session.h"
#include "tests/support/fake-pipe.h"
#include "tests/support/test-random.h"
#include "transport/stream-link.h"

namespace postern::test {

// One VM's keys, as the host has them.
class LabKeyring final : public HostKeyring {
 public:
  kj::Maybe<HostIdentity> identity;
  kj::Maybe<HostEnrolment> enrolment;

  kj::Maybe<const HostIdentity&> identityFor(const Hint& hint) override;
  kj::Maybe<const HostEnrolment&> enrolmentFor(const Hint& hint) override;
};

using GuestOutcome = kj::OneOf<GuestSession, EstablishFailure, HelloError>;
using HostOutcome = kj::OneOf<kj::Own<IncomingSession>, EstablishFailure, HelloError>;

class SessionLab {
 public:
  explicit SessionLab(uint64_t seed = 1);
  ~SessionLab() noexcept(false);

  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  TestRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  FakeWire wire;

  // Valid and fitting; spoil them before connecting.
  VmId vm;
  GuestCredentials guestCredentials;  // an identity; useEnrolment() makes it an enrolment
  LabKeyring keyring;
  Hello guestHello;
  Hello hostHello;
  Confirmation confirmation;

  void useEnrolment();

  // Turns the clock and then the loop until nothing is left to do.
  void advance(kj::Duration by);
  void settle();

  // Each end's way to a session, within limits::HANDSHAKE_DEADLINE; both must run for either to finish. The HELLOs are
  // filled in from credentials and random.
  kj::Promise<GuestOutcome> startGuest(kj::Own<BytePipe> pipe);
  kj::Promise<HostOutcome> startHost(kj::Own<BytePipe> pipe);

  struct Sessions {
    kj::Own<Session> guest;
    kj::Own<Session> host;
    Session& at(Role role) { return role == Role::GUEST ? *guest : *host; }
  };
  // Connects both over `wire`, commits an enrolment, and fails the test if anything does not go well.
  Sessions connect();
  // Sessions with given keys over a HELLO exchange alone: as after a handshake, but quicker.
  Sessions connectWithoutHandshake();

 private:
  template <typename Outcome>
  kj::Promise<Outcome> within(kj::TimePoint deadline, kj::Promise<Outcome> promise);
};

}  // namespace postern::test
