#include <doctest/doctest.h>
#include <kj/debug.h>

#include "tests/support/serial-end.h"
#include "tests/support/session-lab.h"

using namespace postern;
using namespace postern::test;

// Real sessions (Noise, records) over the serial link.

namespace {

// A process at one end: sessions one after the other, for ever.
class SessionProcess {
 public:
  SessionProcess(SessionLab& lab, Role role)
      : lab(lab),
        role(role),
        pipe(role == Role::GUEST ? lab.wire.toGuest : lab.wire.toHost,
             role == Role::GUEST ? lab.wire.toHost : lab.wire.toGuest),
        link(pipe, hello(), lab.random, lab.timer, lab.scratch),
        task(kj::evalLater([this]() { return run(); }).eagerlyEvaluate([](kj::Exception&& e) {
          kj::throwFatalException(kj::mv(e));
        })) {}
  ~SessionProcess() noexcept(false) { pipe.kill(); }

  SessionLab& lab;
  const Role role;
  MortalPipe pipe;
  SerialLink link;
  kj::Maybe<kj::Own<Session>> session;
  unsigned failures = 0;  // to establish

  bool isUp() const {
    KJ_IF_MAYBE (s, session) return !(*s)->isOver();
    return false;
  }

 private:
  kj::Promise<void> task;

  Hello hello() {
    if (role == Role::HOST) return lab.hostHello;
    describeCredentials(lab.guestCredentials, lab.guestHello);
    return lab.guestHello;
  }

  kj::Promise<void> run() {
    return link.accept().then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> accepted) -> kj::Promise<void> {
      REQUIRE(accepted.is<kj::Own<FrameLink>>());
      return establish(kj::mv(accepted.get<kj::Own<FrameLink>>()));
    });
  }

  kj::Promise<void> establish(kj::Own<FrameLink> connection) {
    auto deadline = lab.timer.now() + limits::HANDSHAKE_DEADLINE;
    if (role == Role::GUEST) {
      return establishAsGuest(kj::mv(connection), lab.guestCredentials, lab.confirmation, deadline, lab.environment)
          .then([this](kj::OneOf<GuestSession, EstablishFailure> result) {
            if (result.is<EstablishFailure>()) return failed();
            return use(kj::mv(result.get<GuestSession>().session));
          });
    }
    return establishAsHost(kj::mv(connection), lab.keyring, deadline, lab.environment)
        .then([this](kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) {
          if (result.is<EstablishFailure>()) return failed();
          return use(result.get<kj::Own<IncomingSession>>()->accept(Acceptance()));
        });
  }

  kj::Promise<void> failed() {
    ++failures;
    return run();
  }

  kj::Promise<void> use(kj::Own<Session> established) {
    auto end = established->onEnd();
    session = kj::mv(established);
    return end.then([this](SessionEnd) {
      session = nullptr;
      return run();
    });
  }
};

struct SerialLab : SessionLab {
  kj::Maybe<kj::Own<SessionProcess>> guest;
  kj::Maybe<kj::Own<SessionProcess>> host;

  kj::Maybe<kj::Own<SessionProcess>>& slot(Role role) { return role == Role::GUEST ? guest : host; }
  SessionProcess& process(Role role) { return *KJ_ASSERT_NONNULL(slot(role)); }
  void start(Role role) {
    slot(role) = nullptr;
    slot(role) = kj::heap<SessionProcess>(*this, role);
  }
  ~SerialLab() noexcept(false) {
    guest = nullptr;
    host = nullptr;
  }

  bool pingsBothWays() {
    for (Role role : {Role::GUEST, Role::HOST}) {
      if (!process(role).isUp()) return false;
      auto ping = KJ_ASSERT_NONNULL(process(role).session)->ping();
      if (!ping.poll(waitScope)) return false;
      ping.wait(waitScope);
    }
    return true;
  }
};

}  // namespace

TEST_CASE("a session over the serial link is established and pings both ways, without any timer") {
  SerialLab lab;
  lab.start(Role::HOST);
  lab.start(Role::GUEST);
  lab.settle();
  CHECK(lab.pingsBothWays());
  CHECK(lab.process(Role::GUEST).failures == 0);
  CHECK(lab.process(Role::HOST).failures == 0);
}

TEST_CASE("a process killed after any byte of the handshake and started again has a session without any timer") {
  uint64_t totals[2];
  {
    SerialLab lab;
    lab.start(Role::HOST);
    lab.start(Role::GUEST);
    lab.settle();
    totals[0] = lab.process(Role::GUEST).pipe.bytesWritten;
    totals[1] = lab.process(Role::HOST).pipe.bytesWritten;
  }
  for (Role victim : {Role::GUEST, Role::HOST}) {
    for (uint64_t at = 0; at <= totals[victim == Role::HOST]; at += 5) {
      CAPTURE((victim == Role::GUEST));
      CAPTURE(at);
      SerialLab lab;
      lab.start(Role::HOST);
      lab.start(Role::GUEST);
      lab.process(victim).pipe.writesLeft = at;
      lab.settle();
      lab.start(victim);
      lab.settle();
      REQUIRE(lab.pingsBothWays());
    }
  }
}

TEST_CASE("a session that is closed is followed by the next on the same line") {
  for (Role closing : {Role::GUEST, Role::HOST}) {
    SerialLab lab;
    lab.start(Role::HOST);
    lab.start(Role::GUEST);
    lab.settle();
    auto closed = KJ_ASSERT_NONNULL(lab.process(closing).session)->close(CloseCode::GOODBYE);
    lab.settle();
    CHECK(closed.poll(lab.waitScope));
    CHECK(lab.pingsBothWays());
  }
}

// T32
TEST_CASE("a lost first handshake message costs the handshake's deadline, and one that arrives changed not even that") {
  for (bool lost : {true, false}) {
    SerialLab lab;
    lab.wire.toHost.setStalled(true);
    lab.start(Role::HOST);
    lab.start(Role::GUEST);
    lab.settle();
    // The guest's SYNC echoes the host's already. The host hears it and answers; the guest begins the handshake.
    lab.wire.toHost.setStalled(false);
    lab.wire.toGuest.setStalled(true);
    lab.settle();
    lab.wire.toHost.setStalled(true);
    lab.wire.toGuest.setStalled(false);
    lab.settle();
    auto bytes = lab.wire.toHost.take();
    REQUIRE(bytes.size() == FRAME_HEADER_BYTES + 48);  // HS 1 and nothing else
    bytes.back() = static_cast<kj::byte>(bytes.back() ^ 1);
    if (!lost) lab.wire.toHost.inject(bytes);
    lab.wire.toHost.setStalled(false);
    lab.settle();
    CHECK(lab.pingsBothWays() == !lost);
    lab.advance(limits::HANDSHAKE_DEADLINE);
    CHECK(lab.pingsBothWays());
  }
}
