// What a peer learns, and how long it is waited for, before it has proved itself; and what an enrolment takes before
// its commit.

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::bytesOf;
using test::copyOf;
using test::HostOutcome;
using test::Phase;
using test::RawBytes;
using test::RawMeeting;
using test::RawPeer;
using test::SessionLab;

constexpr size_t KK_HS2_FRAME_BYTES = FRAME_HEADER_BYTES + 48;
constexpr size_t XX_HS2_FRAME_BYTES = FRAME_HEADER_BYTES + 96;

// A host that waits for a guest, and the guest.
struct Meeting {
  SessionLab lab;
  kj::Maybe<kj::Own<RawPeer>> guest;
  kj::Maybe<HostOutcome> outcome;
  kj::Promise<void> running = nullptr;

  explicit Meeting(Phase phase = Phase::SESSION) {
    if (phase == Phase::ENROLMENT) lab.useEnrolment();
    guest = kj::heap<RawPeer>(lab, Role::GUEST);
    running = lab.startHost(lab.wire.hostEnd())
                  .then([this](HostOutcome result) { outcome = kj::mv(result); })
                  .eagerlyEvaluate(nullptr);
  }
  RawPeer& peer() { return *KJ_ASSERT_NONNULL(guest); }

  // The host has closed, after these many bytes and no more.
  void checkClosedAfter(size_t bytes) {
    CHECK(peer().peerHasClosed());
    CHECK(peer().heard().size() == bytes);
    KJ_IF_MAYBE (result, outcome) {
      CHECK(!result->is<kj::Own<IncomingSession>>());
    } else {
      FAIL("the host still waits");
    }
  }
};

void shakeHands(Meeting& meeting) {
  auto& guest = meeting.peer();
  guest.sendHello();
  REQUIRE(guest.receiveHello());
  guest.beginNoise();
  guest.sendHandshake();
  REQUIRE(guest.receiveHandshake());
  if (!guest.handshakeIsDone()) guest.sendHandshake();
  guest.takeKeys();
}

// T7
TEST_CASE("whatever is wrong with a guest's first frame, the host says nothing but its HELLO and closes") {
  for (size_t kind = 0; kind < 4; ++kind) {
    Meeting meeting;
    auto& guest = meeting.peer();
    guest.sendHello();
    REQUIRE(guest.receiveHello());
    guest.beginNoise();
    RawBytes nonsense(48, 7);
    const kj::byte payload[1] = {0};
    if (kind == 0) guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(nonsense));
    if (kind == 1) guest.sendFrame(FrameKind::RECORD, bytesOf(nonsense));
    if (kind == 2) guest.sendFrame(FrameKind::HANDSHAKE, nullptr);
    if (kind == 3) guest.sendHandshake(payload);
    meeting.checkClosedAfter(HELLO_FRAME_BYTES);
  }
}

// T7
TEST_CASE("a guest with a hint that the host does not know hears nothing but HELLO and the close") {
  Meeting meeting;
  auto& guest = meeting.peer();
  guest.hello.keyHint[0] ^= 1;
  guest.sendHello();
  REQUIRE(guest.receiveHello());
  guest.beginNoise();
  guest.sendHandshake();
  meeting.checkClosedAfter(HELLO_FRAME_BYTES);
}

// T8
TEST_CASE("the host sends no record before CONFIRM, and closes without a word at the deadline") {
  for (auto phase : {Phase::SESSION, Phase::ENROLMENT}) {
    Meeting meeting(phase);
    size_t bytes = HELLO_FRAME_BYTES + (phase == Phase::SESSION ? KK_HS2_FRAME_BYTES : XX_HS2_FRAME_BYTES);
    shakeHands(meeting);
    CHECK(!meeting.peer().peerHasClosed());
    CHECK(meeting.peer().heard().size() == bytes);
    meeting.lab.advance(limits::HANDSHAKE_DEADLINE);
    meeting.checkClosedAfter(bytes);
  }
}

// T8
TEST_CASE("a CONFIRM that does not decrypt, is none, or makes no sense is answered by a bare close") {
  auto confirmation = encodeConfirmation({});
  for (size_t kind = 0; kind < 4; ++kind) {
    Meeting meeting;
    shakeHands(meeting);
    auto& guest = meeting.peer();
    if (kind == 0) guest.sendFrame(FrameKind::RECORD, bytesOf(RawBytes(64, 7)));
    if (kind == 1) guest.send(RecordType::RPC, confirmation);
    if (kind == 2) guest.send(RecordType::CONFIRM, confirmation.slice(0, confirmation.size() - 8));
    if (kind == 3) {
      auto other = copyOf(confirmation);
      other[16] = PROTOCOL_VERSION + 1;  // the struct begins behind table and root pointer
      guest.send(RecordType::CONFIRM, bytesOf(other));
    }
    meeting.checkClosedAfter(HELLO_FRAME_BYTES + KK_HS2_FRAME_BYTES);
  }
  // The same one unchanged goes through.
  Meeting meeting;
  shakeHands(meeting);
  meeting.peer().send(RecordType::CONFIRM, confirmation);
  CHECK(!meeting.peer().peerHasClosed());
  CHECK(KJ_ASSERT_NONNULL(meeting.outcome).is<kj::Own<IncomingSession>>());
}

// T21
TEST_CASE("a frame over 256 bytes before CONFIRM closes the link, even one whose bytes have not come") {
  for (bool early : {true, false}) {
    Meeting meeting;
    auto& guest = meeting.peer();
    if (early) {
      guest.sendHello();
      REQUIRE(guest.receiveHello());
    } else {
      shakeHands(meeting);
    }
    kj::byte header[FRAME_HEADER_BYTES];
    writeFrameHeader({limits::MAX_HANDSHAKE_BODY_BYTES + 1, FrameKind::RECORD, guest.tag}, header);
    guest.sendBytes(header);
    meeting.checkClosedAfter(HELLO_FRAME_BYTES + (early ? 0 : KK_HS2_FRAME_BYTES));
  }
}

// T40
TEST_CASE("a guest that stops anywhere before CONFIRM is cut off after three seconds, and not earlier") {
  for (unsigned steps = 0; steps < 3; ++steps) {
    Meeting meeting;
    auto& guest = meeting.peer();
    if (steps > 0) {
      guest.sendHello();
      REQUIRE(guest.receiveHello());
      guest.beginNoise();
    }
    if (steps > 1) guest.sendHandshake();
    meeting.lab.advance(limits::HANDSHAKE_DEADLINE - 1 * kj::MILLISECONDS);
    CHECK(!guest.peerHasClosed());
    meeting.lab.advance(1 * kj::MILLISECONDS);
    CHECK(guest.peerHasClosed());
  }
}

// T12
TEST_CASE("before an enrolment's commit every record but CLOSE and COMMIT ends the session") {
  const kj::byte word[8] = {};
  for (auto role : {Role::GUEST, Role::HOST}) {
    for (auto type : {RecordType::RPC, RecordType::PING, RecordType::PONG, RecordType::CONFIRM, RecordType::BULK}) {
      RawMeeting meeting(role, Phase::ENROLMENT);
      meeting.peer.send(type, word);
      CHECK(meeting.end().reason == EndReason::PROTOCOL_ERROR);
    }
    RawMeeting meeting(role, Phase::ENROLMENT);
    meeting.peer.sendRekey();
    CHECK(meeting.end().reason == EndReason::PROTOCOL_ERROR);
  }
}

// T12
TEST_CASE("COMMITTED before COMMIT, and a second COMMIT, end the session") {
  {
    RawMeeting guest(Role::GUEST, Phase::ENROLMENT);
    guest.peer.send(RecordType::COMMIT);
    CHECK(guest.end().reason == EndReason::PROTOCOL_ERROR);
  }
  RawMeeting host(Role::HOST, Phase::ENROLMENT);
  host.peer.send(RecordType::COMMIT);
  CHECK(!host.peer.peerHasClosed());
  host.peer.send(RecordType::COMMIT);
  CHECK(host.end().reason == EndReason::PROTOCOL_ERROR);
}

}  // namespace
}  // namespace postern
