// Who is refused before there is a session, for which reason, and how little the refused peer learns.

#include <doctest/doctest.h>
#include <sodium.h>

#include <functional>

#include "protocol/crc32c.h"
#include "protocol/limits.h"
#include "protocol/wire-int.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::bytesOf;
using test::FakeWire;
using test::GuestOutcome;
using test::HostOutcome;
using test::RawBytes;
using test::RawPeer;
using test::SessionLab;
using test::TestRandom;

constexpr uint64_t KK_FIRST = FRAME_HEADER_BYTES + 48;
constexpr uint64_t KK_SECOND = FRAME_HEADER_BYTES + 48;
constexpr uint64_t XX_FIRST = FRAME_HEADER_BYTES + 48;
constexpr uint64_t XX_SECOND = FRAME_HEADER_BYTES + 96;

// Encodings of points of low order: zero, one, the two of order 8, p - 1, p and p + 1.
const noise::PublicKey LOW_ORDER[] = {
    {},
    {1},
    {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
     0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
    {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
     0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
    {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
};

GuestKeyPair otherGuestKeys() {
  TestRandom random(901);
  return GuestKeyPair::generate(random);
}
HostKeyPair otherHostKeys() {
  TestRandom random(902);
  return HostKeyPair::generate(random);
}

// A real host and a raw guest that says what it should not. All hosts of one phase have the same keys and random
// numbers, so what they say can be compared.
struct Refused {
  explicit Refused(bool enrolment = false) {
    if (enrolment) lab.useEnrolment();
    hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
    lab.settle();
  }
  SessionLab lab;
  kj::Promise<HostOutcome> hostWay = nullptr;

  HostOutcome outcome() {
    REQUIRE(hostWay.poll(lab.waitScope));
    return hostWay.wait(lab.waitScope);
  }
  EstablishFailure failure() {
    auto result = outcome();
    REQUIRE(result.is<EstablishFailure>());
    return result.get<EstablishFailure>();
  }
  HandshakeRefusal refusal() {
    auto why = failure();
    REQUIRE(why.is<HandshakeRefusal>());
    return why.get<HandshakeRefusal>();
  }
};

// HELLO both ways, then whatever `send` does; the host must close at once.
RawBytes heardBy(bool enrolment, HandshakeRefusal expected, const std::function<void(SessionLab&)>& spoil,
                 const std::function<void(RawPeer&)>& spoilPeer, const std::function<void(RawPeer&)>& send) {
  Refused refused(enrolment);
  spoil(refused.lab);
  RawPeer guest(refused.lab, Role::GUEST);
  spoilPeer(guest);
  guest.sendHello();
  REQUIRE(guest.receiveHello());
  send(guest);
  CHECK(guest.peerHasClosed());
  CHECK(refused.refusal() == expected);
  return guest.heard();
}

void nothing(SessionLab&) {}
void nothingMore(RawPeer&) {}
void firstMessage(RawPeer& guest) {
  guest.beginNoise();
  guest.sendHandshake();
}

// Wrong keys -------------------------------------------------------------------------------------------------------

TEST_CASE("whatever is wrong with a first message, the host says its HELLO, always the same, and closes") {
  auto guestIdentity = [](SessionLab& lab) -> GuestIdentity& { return lab.guestCredentials.get<GuestIdentity>(); };
  std::vector<RawBytes> heard;
  auto attempt = [&](HandshakeRefusal expected, const std::function<void(SessionLab&)>& spoil,
                     const std::function<void(RawPeer&)>& spoilPeer, const std::function<void(RawPeer&)>& send) {
    heard.push_back(heardBy(false, expected, spoil, spoilPeer, send));
  };
  // The hint of the right pair, so that the keys are tried at all.
  Hint rightHint;
  {
    SessionLab lab;
    auto& own = guestIdentity(lab);
    rightHint = keyHint(own.host, own.own.publicKey());
  }
  auto hinted = [&](RawPeer& guest) { guest.hello.keyHint = rightHint; };

  attempt(
      HandshakeRefusal::UNKNOWN_HINT, nothing, [](RawPeer& guest) { guest.hello.keyHint[7] ^= 1; }, firstMessage);
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { guestIdentity(lab).linkSecret.bytes.begin()[0] ^= 1; }, hinted,
      firstMessage);
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { guestIdentity(lab).own = otherGuestKeys(); }, hinted,
      firstMessage);
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { guestIdentity(lab).host = otherHostKeys().publicKey(); },
      hinted, firstMessage);
  // The uuid is not on the wire: the raw guest takes it from the lab, the host from its identity.
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { lab.vm.bytes[15] ^= 1; }, hinted, firstMessage);
  for (size_t length : {size_t(0), size_t(1), size_t(31), size_t(32), size_t(47)}) {
    attempt(HandshakeRefusal::BAD_LENGTH, nothing, nothingMore,
            [&](RawPeer& guest) { guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(length, 9))); });
  }
  attempt(HandshakeRefusal::BAD_TAG, nothing, nothingMore,
          [&](RawPeer& guest) { guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(48, 9))); });
  attempt(HandshakeRefusal::BAD_LENGTH, nothing, nothingMore, [&](RawPeer& guest) {
    guest.beginNoise();
    kj::byte payload[1] = {1};
    guest.sendHandshake(payload);
  });
  attempt(HandshakeRefusal::BAD_LENGTH, nothing, nothingMore,
          [&](RawPeer& guest) { guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(256, 9))); });
  for (auto& point : LOW_ORDER) {
    attempt(
        HandshakeRefusal::ZERO_SHARED_SECRET, nothing, [&](RawPeer& guest) { guest.shownEphemeral = point; },
        firstMessage);
  }
  attempt(HandshakeRefusal::UNEXPECTED_MESSAGE, nothing, nothingMore,
          [](RawPeer& guest) { guest.sendFrame(FrameKind::RECORD, bytesOf(RawBytes(48))); });

  // What the HELLO itself gives away is found with the first message, and not earlier.
  attempt(
      HandshakeRefusal::NO_COMMON_SUITE, nothing, [](RawPeer& guest) { guest.hello.suites = SUITE_AESGCM_BLAKE2B; },
      firstMessage);
  attempt(
      HandshakeRefusal::NO_COMMON_SUITE, nothing, [](RawPeer& guest) { guest.hello.suites = 0; }, firstMessage);
  for (uint32_t patterns : {0u, 4u, 0x80000000u, PATTERN_KKPSK0 | PATTERN_XXPSK0, PATTERN_KKPSK0 | 8u}) {
    attempt(
        HandshakeRefusal::NO_COMMON_PATTERN, nothing, [&](RawPeer& guest) { guest.hello.patterns = patterns; },
        firstMessage);
  }
  // An enrolled VM without an open token knows no token.
  attempt(
      HandshakeRefusal::UNKNOWN_HINT, nothing, [](RawPeer& guest) { guest.hello.patterns = PATTERN_XXPSK0; },
      [](RawPeer& guest) { guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(48, 9))); });

  for (auto& one : heard) {
    CHECK(one.size() == HELLO_FRAME_BYTES);
    CHECK(one == heard[0]);
  }
}

TEST_CASE(
    "whatever is wrong with a first message of an enrolment, the host says its HELLO, always the same, and closes") {
  std::vector<RawBytes> heard;
  auto attempt = [&](HandshakeRefusal expected, const std::function<void(SessionLab&)>& spoil,
                     const std::function<void(RawPeer&)>& spoilPeer, const std::function<void(RawPeer&)>& send) {
    heard.push_back(heardBy(true, expected, spoil, spoilPeer, send));
  };
  auto token = [](SessionLab& lab) -> kj::byte& {
    return lab.guestCredentials.get<GuestEnrolment>().token.bytes.begin()[31];
  };
  attempt(
      HandshakeRefusal::UNKNOWN_HINT, [&](SessionLab& lab) { token(lab) ^= 1; }, nothingMore, firstMessage);
  Hint rightHint;
  {
    SessionLab lab;
    lab.useEnrolment();
    rightHint = tokenHint(lab.guestCredentials.get<GuestEnrolment>().token);
  }
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { token(lab) ^= 1; },
      [&](RawPeer& guest) { guest.hello.tokenHint = rightHint; }, firstMessage);
  attempt(
      HandshakeRefusal::BAD_TAG, [&](SessionLab& lab) { lab.vm.bytes[0] ^= 1; }, nothingMore, firstMessage);
  attempt(HandshakeRefusal::BAD_LENGTH, nothing, nothingMore, [&](RawPeer& guest) {
    guest.beginNoise();
    kj::byte payload[1] = {1};
    guest.sendHandshake(payload);
  });
  // The holder of the token with an ephemeral key of low order: found when the host would answer.
  for (auto& point : LOW_ORDER) {
    attempt(
        HandshakeRefusal::ZERO_SHARED_SECRET, nothing, [&](RawPeer& guest) { guest.shownEphemeral = point; },
        firstMessage);
  }
  for (auto& one : heard) {
    CHECK(one.size() == HELLO_FRAME_BYTES);
    CHECK(one == heard[0]);
  }
}

TEST_CASE("a host that offers no enrolment has no pattern for one, and the guest finds out first") {
  SessionLab lab;
  lab.useEnrolment();
  lab.hostHello.patterns = PATTERN_KKPSK0;
  auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  auto guestOutcome = lab.startGuest(lab.wire.guestEnd()).wait(lab.waitScope);
  CHECK((guestOutcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::NO_COMMON_PATTERN));
  CHECK(lab.wire.toHost.written() == HELLO_FRAME_BYTES);
  auto hostOutcome = hostWay.wait(lab.waitScope);
  CHECK((hostOutcome.get<EstablishFailure>().get<LinkEnd>() == LinkEnd::ENDED));
}

TEST_CASE("a HELLO of another version, another kind or the same role closes the link without a word more") {
  struct Wrong {
    size_t place;
    kj::byte value;
    HelloError expected;
  };
  const Wrong all[] = {
      {0, 'Q', HelloError::BAD_MAGIC},    {4, 2, HelloError::NO_VERSION},
      {5, 0, HelloError::NO_VERSION},     {6, kj::byte(Role::HOST), HelloError::SAME_ROLE},
      {6, 0, HelloError::BAD_FIELD},      {6, 3, HelloError::BAD_FIELD},
      {7, 0, HelloError::BAD_FIELD},      {7, 5, HelloError::BAD_FIELD},
      {96, 1, HelloError::BAD_FIELD},     {104, 1, HelloError::BAD_FIELD},
      {104, 2, HelloError::BAD_FIELD},    {105, 1, HelloError::BAD_FIELD},
      {107, 0xff, HelloError::BAD_FIELD},
  };
  for (auto& wrong : all) {
    CAPTURE(wrong.place);
    Refused refused;
    RawPeer guest(refused.lab, Role::GUEST);
    if (wrong.place == 4) guest.hello.versionMax = 9;
    kj::byte frame[HELLO_FRAME_BYTES];
    auto hello = kj::arrayPtr(frame, sizeof(frame)).slice(FRAME_HEADER_BYTES, sizeof(frame));
    writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
    writeHello(guest.hello, hello);
    hello[wrong.place] = wrong.value;
    if (wrong.place == 5) hello[4] = 0;
    putLittleEndian<uint32_t>(crc32c(hello.slice(0, 108)), hello.begin() + 108);
    guest.sendBytes(kj::arrayPtr(frame, sizeof(frame)));
    CHECK(guest.peerHasClosed());
    auto outcome = refused.outcome();
    REQUIRE(outcome.is<HelloError>());
    CHECK(outcome.get<HelloError>() == wrong.expected);
    CHECK(guest.heard().size() == HELLO_FRAME_BYTES);
  }
}

TEST_CASE("a later version that still speaks ours is welcome") {
  SessionLab lab;
  lab.guestHello.versionMax = 200;
  lab.hostHello.versionMin = 0;
  auto sessions = lab.connect();
  sessions.guest->ping().wait(lab.waitScope);
}

TEST_CASE("two guests, or two hosts, refuse each other") {
  {
    SessionLab lab;
    auto first = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    auto second = lab.startGuest(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
    CHECK((first.wait(lab.waitScope).get<HelloError>() == HelloError::SAME_ROLE));
    CHECK((second.wait(lab.waitScope).get<HelloError>() == HelloError::SAME_ROLE));
  }
  SessionLab lab;
  auto first = lab.startHost(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  auto second = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  CHECK((first.wait(lab.waitScope).get<HelloError>() == HelloError::SAME_ROLE));
  CHECK((second.wait(lab.waitScope).get<HelloError>() == HelloError::SAME_ROLE));
}

// The guest's side -------------------------------------------------------------------------------------------------

TEST_CASE("a guest refuses a host with another key, secret or VM, and says nothing behind its first message") {
  for (int what = 0; what < 3; ++what) {
    SessionLab lab;
    auto way = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    auto& identity = KJ_ASSERT_NONNULL(lab.keyring.identity);
    if (what == 0) identity.own = otherHostKeys();
    if (what == 1) identity.linkSecret.bytes.begin()[9] ^= 0x10;
    if (what == 2) lab.vm.bytes[3] ^= 1;
    RawPeer host(lab, Role::HOST);
    host.sendHello();
    REQUIRE(host.receiveHello());
    // A host with wrong keys cannot read the first message; it answers all the same, with bytes of the right length.
    host.beginNoise();
    CHECK(!host.receiveHandshake());
    host.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(48, 9)));
    CHECK(host.peerHasClosed());
    auto outcome = way.wait(lab.waitScope);
    CHECK((outcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::BAD_TAG));
    CHECK(host.heard().size() == HELLO_FRAME_BYTES + KK_FIRST);
  }
}

TEST_CASE("a guest refuses an ephemeral key of low order from the host") {
  for (auto& point : LOW_ORDER) {
    SessionLab lab;
    auto way = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    RawPeer host(lab, Role::HOST);
    host.shownEphemeral = point;
    host.sendHello();
    REQUIRE(host.receiveHello());
    host.beginNoise();
    REQUIRE(host.receiveHandshake());
    host.sendHandshake();
    CHECK(host.peerHasClosed());
    auto outcome = way.wait(lab.waitScope);
    CHECK((outcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::ZERO_SHARED_SECRET));
    CHECK(host.heard().size() == HELLO_FRAME_BYTES + KK_FIRST);
  }
}

TEST_CASE("a guest whose own bytes come back refuses them") {
  {
    SessionLab lab;
    auto way = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    lab.settle();
    lab.wire.toGuest.inject(lab.wire.toHost.take());
    CHECK((way.wait(lab.waitScope).get<HelloError>() == HelloError::SAME_ROLE));
  }
  // With a host's HELLO, and then its own first message.
  SessionLab lab;
  auto way = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  RawPeer host(lab, Role::HOST);
  host.sendHello();
  REQUIRE(host.receiveHello());
  auto first = KJ_ASSERT_NONNULL(host.receiveFrame());
  host.sendFrame(first.kind, bytesOf(first.body));
  auto outcome = way.wait(lab.waitScope);
  CHECK((outcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::BAD_TAG));
}

TEST_CASE("a host whose own bytes come back refuses them") {
  Refused refused;
  auto& lab = refused.lab;
  lab.wire.toHost.inject(lab.wire.toGuest.take());
  lab.settle();
  CHECK((refused.outcome().get<HelloError>() == HelloError::SAME_ROLE));
}

// Enrolment --------------------------------------------------------------------------------------------------------

TEST_CASE("a guest whose bundle has another host's key shows it nothing of its own") {
  SessionLab lab;
  lab.useEnrolment();
  lab.guestCredentials.get<GuestEnrolment>().host = otherHostKeys().publicKey();
  auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
  auto guestOutcome = lab.startGuest(lab.wire.guestEnd()).wait(lab.waitScope);
  CHECK((guestOutcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::WRONG_HOST_KEY));
  CHECK(lab.wire.toHost.written() == HELLO_FRAME_BYTES + XX_FIRST);
  auto hostOutcome = hostWay.wait(lab.waitScope);
  CHECK((hostOutcome.get<EstablishFailure>().get<LinkEnd>() == LinkEnd::ENDED));
}

TEST_CASE("a bundle without a host key enrols with whoever has the token, and reports its key") {
  SessionLab lab;
  lab.useEnrolment();
  lab.guestCredentials.get<GuestEnrolment>().host = nullptr;
  auto hostKey = KJ_ASSERT_NONNULL(lab.keyring.enrolment).own.publicKey();
  auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  auto hostOutcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
  auto& incoming = *hostOutcome.get<kj::Own<IncomingSession>>();
  CHECK((incoming.guest() == lab.guestCredentials.get<GuestEnrolment>().own.publicKey()));
  Acceptance acceptance;
  acceptance.linkSecret = LinkSecret::generate(lab.random);
  auto session = incoming.accept(acceptance);
  auto guestOutcome = guestWay.wait(lab.waitScope);
  auto& guest = guestOutcome.get<GuestSession>();
  CHECK((guest.host == hostKey));
  CHECK(KJ_ASSERT_NONNULL(guest.acceptance.linkSecret).bytes.equals(KJ_ASSERT_NONNULL(acceptance.linkSecret).bytes));
}

TEST_CASE("a token that is bound to a guest's key is good for that key and no other") {
  for (bool same : {true, false}) {
    SessionLab lab;
    lab.useEnrolment();
    KJ_ASSERT_NONNULL(lab.keyring.enrolment).guest =
        same ? lab.guestCredentials.get<GuestEnrolment>().own.publicKey() : otherGuestKeys().publicKey();
    auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    auto hostOutcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
    if (same) {
      CHECK(hostOutcome.is<kj::Own<IncomingSession>>());
    } else {
      CHECK((hostOutcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::WRONG_GUEST_KEY));
      auto guestOutcome = guestWay.wait(lab.waitScope);
      CHECK((guestOutcome.get<EstablishFailure>().get<LinkEnd>() == LinkEnd::ENDED));
      CHECK(lab.wire.toGuest.written() == HELLO_FRAME_BYTES + XX_SECOND);
    }
  }
}

TEST_CASE("static keys of low order are refused by either end") {
  for (auto& point : LOW_ORDER) {
    {
      SessionLab lab;
      lab.useEnrolment();
      lab.guestCredentials.get<GuestEnrolment>().own.pair.publicKey = point;
      auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
      auto hostOutcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
      CHECK((hostOutcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::ZERO_SHARED_SECRET));
      CHECK(lab.wire.toGuest.written() == HELLO_FRAME_BYTES + XX_SECOND);
    }
    SessionLab lab;
    lab.useEnrolment();
    KJ_ASSERT_NONNULL(lab.keyring.enrolment).own.pair.publicKey = point;
    lab.guestCredentials.get<GuestEnrolment>().host = nullptr;
    auto hostWay = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
    auto guestOutcome = lab.startGuest(lab.wire.guestEnd()).wait(lab.waitScope);
    CHECK((guestOutcome.get<EstablishFailure>().get<HandshakeRefusal>() == HandshakeRefusal::ZERO_SHARED_SECRET));
    CHECK(lab.wire.toHost.written() == HELLO_FRAME_BYTES + XX_FIRST);
  }
}

// Out of turn ------------------------------------------------------------------------------------------------------

TEST_CASE("a second first message closes the link") {
  for (bool enrolment : {false, true}) {
    Refused refused(enrolment);
    RawPeer guest(refused.lab, Role::GUEST);
    guest.sendHello();
    REQUIRE(guest.receiveHello());
    guest.beginNoise();
    guest.sendHandshake();
    CHECK(guest.receiveFrame() != nullptr);
    guest.sendFrame(FrameKind::HANDSHAKE, bytesOf(RawBytes(48, 9)));
    CHECK(guest.peerHasClosed());
    auto why = refused.refusal();
    CHECK(why == (enrolment ? HandshakeRefusal::BAD_LENGTH : HandshakeRefusal::UNEXPECTED_MESSAGE));
    CHECK(guest.heard().size() == HELLO_FRAME_BYTES + (enrolment ? XX_SECOND : KK_SECOND));
  }
}

TEST_CASE("a second HELLO closes the link") {
  Refused refused;
  RawPeer guest(refused.lab, Role::GUEST);
  guest.sendHello();
  REQUIRE(guest.receiveHello());
  guest.sendHello();
  CHECK(guest.peerHasClosed());
  CHECK((refused.failure().get<LinkEnd>() == LinkEnd::BAD_FRAME));
  CHECK(guest.heard().size() == HELLO_FRAME_BYTES);
}

// A guest through the handshake; then `send`.
EstablishFailure firstRecord(const std::function<void(SessionLab&, RawPeer&)>& send) {
  Refused refused;
  RawPeer guest(refused.lab, Role::GUEST);
  guest.shakeHands();
  send(refused.lab, guest);
  CHECK(guest.peerHasClosed());
  CHECK(guest.heard().size() == HELLO_FRAME_BYTES + KK_SECOND);  // not a word behind the handshake
  return refused.failure();
}

TEST_CASE("a first record that is no CONFIRM, or none that makes sense, is answered by a bare close") {
  for (auto type : {RecordType::RPC, RecordType::CLOSE, RecordType::REKEY, RecordType::PING, RecordType::PONG,
                    RecordType::COMMIT}) {
    size_t length = type == RecordType::CLOSE ? 1 : type == RecordType::REKEY || type == RecordType::COMMIT ? 0 : 8;
    CHECK(firstRecord([&](SessionLab&, RawPeer& guest) {
            guest.send(type, bytesOf(RawBytes(length, 1)));
          }).is<BadConfirmation>());
  }
  auto confirmWith = [](const std::function<void(RawBytes&)>& change) {
    return firstRecord([&](SessionLab& lab, RawPeer& guest) {
      auto data = encodeConfirmation(lab.confirmation);
      RawBytes bytes(data.begin(), data.end());
      change(bytes);
      guest.send(RecordType::CONFIRM, bytesOf(bytes));
    });
  };
  CHECK(confirmWith([](RawBytes& bytes) { bytes.resize(bytes.size() - 8); }).is<BadConfirmation>());
  CHECK(confirmWith([](RawBytes& bytes) { bytes.resize(bytes.size() - 1); }).is<BadConfirmation>());
  CHECK(confirmWith([](RawBytes& bytes) { bytes.resize(bytes.size() + 8); }).is<BadConfirmation>());
  CHECK(confirmWith([](RawBytes& bytes) { bytes[0] = 1; }).is<BadConfirmation>());     // two segments
  CHECK(confirmWith([](RawBytes& bytes) { bytes[7] = 0x7f; }).is<BadConfirmation>());  // 2^30 words
  CHECK(
      confirmWith([](RawBytes& bytes) { bytes[8] = 0xfd; }).is<BadConfirmation>());   // a root that is a list, far away
  CHECK(confirmWith([](RawBytes& bytes) { bytes[16] ^= 3; }).is<BadConfirmation>());  // another version
}

TEST_CASE("a first record that does not authenticate, or is too short to, is answered by a bare close") {
  auto sealed = [](SessionLab& lab, RawPeer& guest) {
    auto data = encodeConfirmation(lab.confirmation);
    return guest.seal(bytesOf(test::innerBytes(uint8_t(RecordType::CONFIRM), data)));
  };
  auto why = firstRecord([&](SessionLab& lab, RawPeer& guest) {
    auto frame = sealed(lab, guest);
    frame.back() ^= 0x80;
    guest.sendBytes(bytesOf(frame));
  });
  CHECK((why.get<RecordError>() == RecordError::BAD_TAG));
  why = firstRecord([&](SessionLab& lab, RawPeer& guest) {
    sealed(lab, guest);  // a record is lost
    auto frame = sealed(lab, guest);
    guest.sendBytes(bytesOf(frame));
  });
  CHECK((why.get<RecordError>() == RecordError::BAD_TAG));
  for (size_t length : {size_t(0), size_t(16), size_t(23)}) {
    why = firstRecord(
        [&](SessionLab&, RawPeer& guest) { guest.sendFrame(FrameKind::RECORD, bytesOf(RawBytes(length))); });
    CHECK((why.get<RecordError>() == RecordError::TOO_SHORT));
  }
  why = firstRecord([&](SessionLab&, RawPeer& guest) { guest.sendFrame(FrameKind::RECORD, bytesOf(RawBytes(257))); });
  CHECK((why.get<LinkEnd>() == LinkEnd::BAD_FRAME));
}

// A host through the handshake, and CONFIRM; then `send`.
EstablishFailure answerToConfirm(bool enrolment, const std::function<void(SessionLab&, RawPeer&)>& send) {
  SessionLab lab;
  if (enrolment) lab.useEnrolment();
  auto way = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  RawPeer host(lab, Role::HOST);
  host.shakeHands();
  CHECK(KJ_ASSERT_NONNULL(host.receive()).is(RecordType::CONFIRM));
  send(lab, host);
  CHECK(host.receive() == nullptr);
  CHECK(host.peerHasClosed());
  auto outcome = way.wait(lab.waitScope);
  REQUIRE(outcome.is<EstablishFailure>());
  return outcome.get<EstablishFailure>();
}

TEST_CASE("a guest takes ACCEPT or CLOSE for an answer, and nothing else") {
  for (auto type : {RecordType::RPC, RecordType::REKEY, RecordType::PING, RecordType::PONG, RecordType::COMMIT}) {
    size_t length = type == RecordType::REKEY || type == RecordType::COMMIT ? 0 : 8;
    auto why =
        answerToConfirm(false, [&](SessionLab&, RawPeer& host) { host.send(type, bytesOf(RawBytes(length, 1))); });
    CHECK(why.is<BadConfirmation>());
  }
  for (uint8_t code = 0; code < 12; ++code) {
    auto why = answerToConfirm(
        false, [&](SessionLab&, RawPeer& host) { host.send(RecordType::CLOSE, kj::arrayPtr(&code, 1)); });
    if (code >= 1 && code <= uint8_t(CloseCode::VERSION)) {
      CHECK((why.get<CloseCode>() == CloseCode(code)));
    } else {
      CHECK(why.is<BadConfirmation>());
    }
  }
}

TEST_CASE("a link secret comes with an enrolment's ACCEPT and with no other") {
  for (bool enrolment : {true, false}) {
    auto why = answerToConfirm(enrolment, [&](SessionLab& lab, RawPeer& host) {
      Acceptance acceptance;
      if (!enrolment) acceptance.linkSecret = LinkSecret::generate(lab.random);
      host.send(RecordType::CONFIRM, encodeAcceptance(acceptance));
    });
    CHECK(why.is<BadConfirmation>());
  }
}

TEST_CASE("the owner's refusal reaches the guest as its code") {
  SessionLab lab;
  auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  auto outcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
  outcome.get<kj::Own<IncomingSession>>()->refuse(CloseCode::DUPLICATE_IDENTITY).wait(lab.waitScope);
  auto guestOutcome = guestWay.wait(lab.waitScope);
  CHECK((guestOutcome.get<EstablishFailure>().get<CloseCode>() == CloseCode::DUPLICATE_IDENTITY));
}

TEST_CASE("an incoming session that its owner drops closes the link without a word") {
  SessionLab lab;
  auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
  {
    auto outcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
    REQUIRE(outcome.is<kj::Own<IncomingSession>>());
  }
  auto guestOutcome = guestWay.wait(lab.waitScope);
  CHECK((guestOutcome.get<EstablishFailure>().get<LinkEnd>() == LinkEnd::ENDED));
  CHECK(lab.wire.toGuest.written() == HELLO_FRAME_BYTES + KK_SECOND);
}

TEST_CASE("bytes of an earlier session, replayed to a fresh host, are refused") {
  SessionLab lab;
  RawBytes hello, first, confirm;
  {
    // All that the guest of a good session said.
    kj::Vector<kj::byte> said;
    lab.wire.toHost.tap = &said;
    auto guestWay = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    auto hostOutcome = lab.startHost(lab.wire.hostEnd()).wait(lab.waitScope);
    REQUIRE(hostOutcome.is<kj::Own<IncomingSession>>());
    auto firstEnd = said.begin() + HELLO_FRAME_BYTES + KK_FIRST;
    hello.assign(said.begin(), said.begin() + HELLO_FRAME_BYTES);
    first.assign(said.begin() + HELLO_FRAME_BYTES, firstEnd);
    confirm.assign(firstEnd, said.end());
    REQUIRE(confirm.size() > FRAME_HEADER_BYTES);
    lab.wire.toHost.tap = nullptr;
  }
  for (bool tagMended : {false, true}) {
    FakeWire wire;
    auto hostWay = lab.startHost(wire.hostEnd()).eagerlyEvaluate(nullptr);
    wire.toHost.inject(bytesOf(hello));
    lab.settle();
    auto answer = wire.toGuest.take();
    REQUIRE(answer.size() == HELLO_FRAME_BYTES);
    for (auto message : {first, confirm}) {
      if (tagMended) {
        Nonce hostNonce, guestNonce;
        memcpy(hostNonce.data(), answer.begin() + FRAME_HEADER_BYTES + 16, hostNonce.size());
        memcpy(guestNonce.data(), hello.data() + FRAME_HEADER_BYTES + 16, guestNonce.size());
        auto tag = linkTag(hostNonce, guestNonce);
        memcpy(&message[4], tag.data(), tag.size());
      }
      wire.toHost.inject(bytesOf(message));
    }
    auto why = hostWay.wait(lab.waitScope).get<EstablishFailure>();
    if (tagMended) {
      CHECK((why.get<HandshakeRefusal>() == HandshakeRefusal::BAD_TAG));
    } else {
      CHECK((why.get<LinkEnd>() == LinkEnd::BAD_FRAME));
    }
    CHECK(wire.toGuest.written() == HELLO_FRAME_BYTES);
  }
}

}  // namespace
}  // namespace postern
