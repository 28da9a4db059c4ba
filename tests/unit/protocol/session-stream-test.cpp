// What a stream can do to a session: end anywhere, trickle, stall, bring garbage or nothing.

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "tests/support/echo.h"
#include "tests/support/raw-peer.h"
#include "tests/support/sanitized.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::Echo;
using test::EchoServer;
using test::FakeDirection;
using test::GuestOutcome;
using test::HostOutcome;
using test::RawPeer;
using test::SAMPLE_STEP;
using test::SessionLab;

enum class Pattern { KK, XX };
constexpr Role BOTH[] = {Role::GUEST, Role::HOST};

// A short session from HELLO to a clean CLOSE by the guest, as far as the stream lets it.
struct ShortSession {
  explicit ShortSession(Pattern pattern) {
    if (pattern == Pattern::XX) lab.useEnrolment();
  }

  SessionLab lab;
  kj::Own<Session> guest;
  kj::Own<Session> host;
  bool guestDone = false;  // its way ended, with a session or without
  bool hostDone = false;
  int pongs = 0;

  FakeDirection& toward(Role role) { return role == Role::HOST ? lab.wire.toHost : lab.wire.toGuest; }

  void run() {
    auto guestWay = lab.startGuest(lab.wire.guestEnd())
                        .then([this](GuestOutcome outcome) {
                          guestDone = true;
                          if (outcome.is<GuestSession>()) guest = kj::mv(outcome.get<GuestSession>().session);
                        })
                        .eagerlyEvaluate(nullptr);
    auto hostWay = lab.startHost(lab.wire.hostEnd())
                       .then([this](HostOutcome outcome) {
                         hostDone = true;
                         if (!outcome.is<kj::Own<IncomingSession>>()) return;
                         auto& incoming = *outcome.get<kj::Own<IncomingSession>>();
                         Acceptance acceptance;
                         if (incoming.isEnrolment()) acceptance.linkSecret = LinkSecret::generate(lab.random);
                         host = incoming.accept(acceptance);
                         committing =
                             (incoming.isEnrolment() ? host->whenCommit().then([this]() { host->confirmCommit(); })
                                                     : kj::Promise<void>(kj::READY_NOW))
                                 .eagerlyEvaluate([](kj::Exception&&) {});
                       })
                       .eagerlyEvaluate(nullptr);
    lab.settle();
    if (guest.get() != nullptr) {
      auto ready = lab.guestCredentials.is<GuestEnrolment>() ? guest->commit() : kj::Promise<void>(kj::READY_NOW);
      talking = ready.then([this]() { return guest->ping(); })
                    .then([this](auto) {
                      ++pongs;
                      return guest->close(CloseCode::GOODBYE);
                    })
                    .eagerlyEvaluate([](kj::Exception&&) {});
    }
    lab.settle();
    lab.advance(limits::HANDSHAKE_DEADLINE);
  }

  bool hostEndedCleanly() {
    if (host.get() == nullptr || !host->isOver()) return false;
    return host->onEnd().wait(lab.waitScope).reason == EndReason::CLOSED_BY_PEER;
  }

 private:
  kj::Promise<void> committing = nullptr;
  kj::Promise<void> talking = nullptr;
};

TEST_CASE("a short session ends cleanly when nothing is cut") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    ShortSession session(pattern);
    session.run();
    CHECK(session.pongs == 1);
    CHECK(session.hostEndedCleanly());
  }
}

TEST_CASE("a stream that ends after any byte of a session is a failure, never a clean end") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    uint64_t whole[2];
    {
      ShortSession session(pattern);
      session.run();
      for (auto role : BOTH) whole[role == Role::HOST] = session.toward(role).written();
    }
    for (auto toward : BOTH) {
      for (uint64_t cut = 0; cut < whole[toward == Role::HOST]; cut += SAMPLE_STEP) {
        CAPTURE(int(pattern));
        CAPTURE(int(toward));
        CAPTURE(cut);
        ShortSession session(pattern);
        session.toward(toward).cutAfter = cut;
        session.run();
        CHECK(!session.hostEndedCleanly());
        bool bothDone = session.guestDone && session.hostDone;
        CHECK(bothDone);
        bool guestEnded = session.guest.get() == nullptr || session.guest->isOver();
        bool hostEnded = session.host.get() == nullptr || session.host->isOver();
        CHECK(guestEnded);
        CHECK(hostEnded);
      }
    }
  }
}

TEST_CASE("a session works when bytes trickle one at a time, both ways, read or written") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    for (bool reading : {true, false}) {
      ShortSession session(pattern);
      for (auto role : BOTH) {
        (reading ? session.toward(role).readAtMost : session.toward(role).writeAtMost) = 1;
        // Each end sends its HELLO before it reads: the least that a pipe must hold.
        session.toward(role).capacity = HELLO_FRAME_BYTES;
      }
      session.run();
      CAPTURE(int(pattern));
      CAPTURE(reading);
      CHECK(session.pongs == 1);
      CHECK(session.hostEndedCleanly());
    }
  }
}

TEST_CASE("RPC and bulk work when bytes trickle one at a time") {
  SessionLab lab;
  for (auto* direction : {&lab.wire.toHost, &lab.wire.toGuest}) direction->readAtMost = 1;
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto request = guest.peer().castAs<Echo>().echoRequest();
  auto data = kj::heapArray<kj::byte>(10000);
  lab.random.fill(data);
  request.setData(data);
  CHECK((request.send().wait(lab.waitScope).getData() == data));
}

TEST_CASE("many frames in one read are all taken") {
  for (auto role : BOTH) {
    test::RawMeeting meeting(role);
    constexpr int COUNT = 1000;
    for (int i = 1; i <= COUNT; ++i) meeting.peer.sendNumber(RecordType::PING, uint64_t(i));
    auto records = meeting.peer.receiveAll();
    REQUIRE(!records.empty());
    CHECK(records.back().number() == COUNT);
    CHECK(!meeting.session->isOver());
  }
}

TEST_CASE("the first message may come together with the HELLO, and the first record with the last message") {
  // A guest that knows the host's HELLO writes all it has in one go, and the host reads it in one go.
  SessionLab lab;
  lab.wire.toHost.setStalled(true);
  auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  RawPeer guest(lab, Role::GUEST);
  guest.sendHello();
  REQUIRE(guest.receiveHello());
  guest.beginNoise();
  guest.sendHandshake();
  lab.wire.toHost.setStalled(false);
  REQUIRE(guest.receiveHandshake());
  REQUIRE(guest.handshakeIsDone());
  guest.takeKeys();
  guest.confirm();
  CHECK(hostWay.wait(lab.waitScope).is<kj::Own<IncomingSession>>());
}

// Peers that stop --------------------------------------------------------------------------------------------------

// The real end's outcome after `send` has said what it has to say, and three seconds.
template <typename Send>
void checkClosedInTime(Role real, bool atOnce, Send send) {
  SessionLab lab;
  RawPeer peer(lab, real == Role::HOST ? Role::GUEST : Role::HOST);
  bool refused = false;
  auto hostWay = kj::Promise<void>(kj::READY_NOW);
  if (real == Role::HOST) {
    hostWay = lab.startHost(lab.wire.hostEnd())
                  .then([&](HostOutcome outcome) { refused = !outcome.is<kj::Own<IncomingSession>>(); })
                  .eagerlyEvaluate(nullptr);
  } else {
    hostWay = lab.startGuest(lab.wire.guestEnd())
                  .then([&](GuestOutcome outcome) { refused = !outcome.is<GuestSession>(); })
                  .eagerlyEvaluate(nullptr);
  }
  send(peer);
  lab.settle();
  CHECK(refused == atOnce);
  lab.advance(limits::HANDSHAKE_DEADLINE - 1 * kj::MILLISECONDS);
  CHECK(refused == atOnce);
  lab.advance(1 * kj::MILLISECONDS);
  CHECK(refused);
  CHECK(peer.peerHasClosed());
  // Nothing was said after the real end's own HELLO but the guest's first message, if it had a HELLO to answer.
  CHECK(peer.heard().size() <= HELLO_FRAME_BYTES + FRAME_HEADER_BYTES + 48);
}

TEST_CASE("a peer that says nothing is closed after three seconds") {
  for (auto role : BOTH) checkClosedInTime(role, false, [](RawPeer&) {});
}

TEST_CASE("half a HELLO is waited for three seconds and no longer, whatever its length") {
  for (auto role : BOTH) {
    for (size_t length = 1; length < HELLO_FRAME_BYTES; length += 7) {
      checkClosedInTime(role, false, [&](RawPeer& peer) {
        kj::byte frame[HELLO_FRAME_BYTES];
        writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
        writeHello(peer.hello, kj::arrayPtr(frame, sizeof(frame)).slice(FRAME_HEADER_BYTES, sizeof(frame)));
        peer.sendBytes(kj::arrayPtr(frame, length));
      });
    }
  }
}

TEST_CASE("HELLO and then silence is closed after three seconds") {
  for (auto role : BOTH) checkClosedInTime(role, false, [](RawPeer& peer) { peer.sendHello(); });
}

TEST_CASE("garbage in place of a HELLO closes the link at once") {
  for (auto role : BOTH) {
    test::TestRandom random(5);
    for (int round = 0; round < 50; ++round) {
      kj::byte garbage[300];
      random.fill(garbage);
      garbage[3] |= 1;  // the reserved byte: without it some garbage is the beginning of a frame
      checkClosedInTime(role, true, [&](RawPeer& peer) { peer.sendBytes(garbage); });
    }
  }
}

TEST_CASE("a frame that announces more than an unauthenticated peer may send closes the link at its header") {
  for (auto role : BOTH) {
    for (auto kind : {kj::byte(1), kj::byte(2), kj::byte(3)}) {
      const kj::byte header[] = {1, 1, kind, 0, 0, 0, 0, 0};  // 257 bytes
      checkClosedInTime(role, true, [&](RawPeer& peer) { peer.sendBytes(header); });
    }
  }
}

TEST_CASE("anything but a HELLO first closes the link at once") {
  for (auto role : BOTH) {
    for (auto kind : {FrameKind::HANDSHAKE, FrameKind::RECORD}) {
      checkClosedInTime(role, true, [&](RawPeer& peer) { peer.sendFrame(kind, test::bytesOf(test::RawBytes(48))); });
    }
  }
}

TEST_CASE("a guest that goes silent after its first message is closed after three seconds") {
  SessionLab lab;
  auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  RawPeer guest(lab, Role::GUEST);
  guest.shakeHands();
  lab.advance(limits::HANDSHAKE_DEADLINE - 1 * kj::MILLISECONDS);
  CHECK(!hostWay.poll(lab.waitScope));
  lab.advance(1 * kj::MILLISECONDS);
  auto outcome = hostWay.wait(lab.waitScope);
  CHECK(outcome.get<EstablishFailure>().is<TimedOut>());
  CHECK(guest.peerHasClosed());
}

TEST_CASE("a peer that trickles so slowly that three seconds do not suffice is closed") {
  SessionLab lab;
  auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  RawPeer guest(lab, Role::GUEST);
  kj::byte frame[HELLO_FRAME_BYTES];
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
  writeHello(guest.hello, kj::arrayPtr(frame, sizeof(frame)).slice(FRAME_HEADER_BYTES, sizeof(frame)));
  size_t sent = 0;
  while (!hostWay.poll(lab.waitScope) && sent < sizeof(frame)) {
    guest.sendBytes(kj::arrayPtr(frame + sent++, 1));
    lab.advance(100 * kj::MILLISECONDS);
  }
  CHECK(sent == 30);
  CHECK(hostWay.wait(lab.waitScope).get<EstablishFailure>().is<TimedOut>());
}

TEST_CASE("a pipe that takes nothing does not keep an end beyond the deadline") {
  for (auto role : BOTH) {
    SessionLab lab;
    (role == Role::HOST ? lab.wire.toGuest : lab.wire.toHost).capacity = 60;  // half a HELLO
    RawPeer peer(lab, role == Role::HOST ? Role::GUEST : Role::HOST);
    peer.sendHello();
    bool refused = false;
    auto way = role == Role::HOST ? lab.startHost(lab.wire.hostEnd()).then([&](HostOutcome outcome) {
      refused = outcome.is<EstablishFailure>();
    })
                                  : lab.startGuest(lab.wire.guestEnd()).then([&](GuestOutcome outcome) {
                                      refused = outcome.is<EstablishFailure>();
                                    });
    auto running = way.eagerlyEvaluate(nullptr);
    lab.advance(limits::HANDSHAKE_DEADLINE - 1 * kj::MILLISECONDS);
    CHECK(!refused);
    lab.advance(1 * kj::MILLISECONDS);
    CHECK(refused);
  }
}

}  // namespace
}  // namespace postern
