// What a handshake is bound to: both HELLOs, the VM, the pinned keys, the token. The engine's own tests are
// noise-*-test.cpp.

#include <doctest/doctest.h>

#include "protocol/handshake.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::LabKeyring;
using test::TestRandom;

enum class Kind { PAIR, ENROLMENT };
constexpr Kind BOTH[] = {Kind::PAIR, Kind::ENROLMENT};

// A guest and a host whose credentials and HELLOs fit. Spoil something, then shake hands.
struct Meeting {
  TestRandom random;
  VmId vm;
  LabKeyring keyring;
  GuestCredentials credentials;
  HelloPair guestSees;
  HelloPair hostSees;

  explicit Meeting(Kind kind) {
    vm.bytes[3] = 7;
    auto guestKeys = GuestKeyPair::generate(random);
    auto hostKeys = HostKeyPair::generate(random);
    auto hostPublic = hostKeys.publicKey();
    if (kind == Kind::PAIR) {
      auto secret = LinkSecret::generate(random);
      keyring.identity = HostIdentity{vm, kj::mv(hostKeys), guestKeys.publicKey(), LinkSecret{secret.bytes.clone()}};
      credentials = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};
    } else {
      auto token = EnrolmentToken::generate(random);
      keyring.enrolment = HostEnrolment{vm, kj::mv(hostKeys), nullptr, EnrolmentToken{token.bytes.clone()}};
      credentials = GuestEnrolment{vm, kj::mv(guestKeys), hostPublic, kj::mv(token)};
    }
    Hello guest, host;
    guest.role = Role::GUEST;
    host.role = Role::HOST;
    host.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
    describeCredentials(credentials, guest);
    random.fill(kj::arrayPtr(guest.nonce.data(), guest.nonce.size()));
    random.fill(kj::arrayPtr(host.nonce.data(), host.nonce.size()));
    setHellos(guest, host);
  }

  void setHellos(const Hello& guest, const Hello& host) {
    kj::byte bytes[HELLO_BYTES];
    writeHello(host, bytes);
    guestSees = pairHellos(guest, host, bytes);
    writeHello(guest, bytes);
    hostSees = pairHellos(host, guest, bytes);
  }

  GuestEnrolment& guestEnrolment() { return credentials.get<GuestEnrolment>(); }
  HostEnrolment& hostEnrolment() { return KJ_ASSERT_NONNULL(keyring.enrolment); }

  // Who refused, at which message (from 1; 0: at once), and why; null when both finished.
  struct Refused {
    Role by;
    unsigned message;
    HandshakeRefusal why;
    bool operator==(const Refused&) const = default;
  };
  kj::Maybe<Refused> shakeHands() {
    auto guestBegun = Handshake::begin(guestSees, credentials, random);
    if (guestBegun.is<HandshakeRefusal>()) return Refused{Role::GUEST, 0, guestBegun.get<HandshakeRefusal>()};
    auto hostBegun = Handshake::begin(hostSees, keyring, random);
    if (hostBegun.is<HandshakeRefusal>()) return Refused{Role::HOST, 0, hostBegun.get<HandshakeRefusal>()};
    auto& guest = *guestBegun.get<kj::Own<Handshake>>();
    auto& host = *hostBegun.get<kj::Own<Handshake>>();
    for (unsigned number = 1; !guest.isFinished() || !host.isFinished(); ++number) {
      bool guestWrites = guest.isWriting();
      auto message = (guestWrites ? guest : host).write();
      REQUIRE(message.is<Handshake::Message>());
      KJ_IF_MAYBE (why, (guestWrites ? host : guest).read(message.get<Handshake::Message>().asPtr())) {
        return Refused{guestWrites ? Role::HOST : Role::GUEST, number, *why};
      }
    }
    auto atGuest = guest.finish(), atHost = host.finish();
    CHECK(atGuest.handshakeHash == atHost.handshakeHash);
    CHECK(atGuest.sealing.bytes.equals(atHost.opening.bytes));
    CHECK(atGuest.opening.bytes.equals(atHost.sealing.bytes));
    CHECK(!atGuest.sealing.bytes.equals(atGuest.opening.bytes));
    CHECK(atHost.enrolment == credentials.is<GuestEnrolment>());
    return nullptr;
  }
  bool isRefused(Role by, unsigned message, HandshakeRefusal why) {
    auto result = shakeHands();
    KJ_IF_MAYBE (refused, result) return *refused == Refused{by, message, why};
    return false;
  }
};

TEST_CASE("credentials that fit give both ends the same hash and the two keys crosswise") {
  for (auto kind : BOTH) CHECK(Meeting(kind).shakeHands() == nullptr);
}

// T2
TEST_CASE("a byte of either HELLO that arrived changed is refused at the first message, even where nobody reads it") {
  for (auto kind : BOTH) {
    for (size_t i = 0; i < HELLO_PROLOGUE_BYTES; ++i) {
      Meeting guestsChanged(kind), hostsChanged(kind);
      guestsChanged.hostSees.peerBytes[i] ^= 0x10;
      hostsChanged.guestSees.peerBytes[i] ^= 0x10;
      CHECK(guestsChanged.isRefused(Role::HOST, 1, HandshakeRefusal::BAD_TAG));
      CHECK(hostsChanged.isRefused(Role::HOST, 1, HandshakeRefusal::BAD_TAG));
    }
  }
}

// T3
TEST_CASE("the identity or the token of one VM on another VM's channel is refused at the first message") {
  for (size_t i = 0; i < 16; ++i) {
    Meeting pair(Kind::PAIR), enrolment(Kind::ENROLMENT);
    KJ_ASSERT_NONNULL(pair.keyring.identity).vm.bytes[i] ^= 1;
    enrolment.hostEnrolment().vm.bytes[i] ^= 1;
    CHECK(pair.isRefused(Role::HOST, 1, HandshakeRefusal::BAD_TAG));
    CHECK(enrolment.isRefused(Role::HOST, 1, HandshakeRefusal::BAD_TAG));
  }
}

// T9
TEST_CASE("a guest's HELLO names exactly one pattern, and the host must offer it") {
  for (uint32_t wanted : {uint32_t(0), PATTERN_KKPSK0 | PATTERN_XXPSK0, uint32_t(4), PATTERN_KKPSK0 | uint32_t(4)}) {
    Meeting meeting(Kind::PAIR);
    auto guest = meeting.guestSees.own;
    guest.patterns = wanted;
    meeting.setHellos(guest, meeting.hostSees.own);
    CHECK(meeting.isRefused(Role::GUEST, 0, HandshakeRefusal::NO_COMMON_PATTERN));
    auto begun = Handshake::begin(meeting.hostSees, meeting.keyring, meeting.random);
    REQUIRE(begun.is<HandshakeRefusal>());
    CHECK(begun.get<HandshakeRefusal>() == HandshakeRefusal::NO_COMMON_PATTERN);
  }
  for (auto kind : BOTH) {
    Meeting meeting(kind);
    auto host = meeting.hostSees.own;
    host.patterns ^= meeting.guestSees.own.patterns;
    meeting.setHellos(meeting.guestSees.own, host);
    CHECK(meeting.isRefused(Role::GUEST, 0, HandshakeRefusal::NO_COMMON_PATTERN));
  }
}

TEST_CASE("without a suite in common neither end begins") {
  Meeting meeting(Kind::PAIR);
  auto guest = meeting.guestSees.own;
  guest.suites = SUITE_AESGCM_BLAKE2B;
  meeting.setHellos(guest, meeting.hostSees.own);
  CHECK(meeting.isRefused(Role::GUEST, 0, HandshakeRefusal::NO_COMMON_SUITE));
  auto begun = Handshake::begin(meeting.hostSees, meeting.keyring, meeting.random);
  REQUIRE(begun.is<HandshakeRefusal>());
  CHECK(begun.get<HandshakeRefusal>() == HandshakeRefusal::NO_COMMON_SUITE);
}

TEST_CASE("a hint that the host does not know is refused before any message is looked at") {
  for (auto kind : BOTH) {
    Meeting meeting(kind);
    auto guest = meeting.guestSees.own;
    (kind == Kind::PAIR ? guest.keyHint : guest.tokenHint)[7] ^= 1;
    meeting.setHellos(guest, meeting.hostSees.own);
    CHECK(meeting.isRefused(Role::HOST, 0, HandshakeRefusal::UNKNOWN_HINT));
  }
}

// T10
TEST_CASE("a guest that enrols shows its key to the bundle's host only") {
  Meeting meeting(Kind::ENROLMENT);
  meeting.guestEnrolment().host = HostKeyPair::generate(meeting.random).publicKey();
  // At the host's message, the second: the guest's key would have been in the third.
  CHECK(meeting.isRefused(Role::GUEST, 2, HandshakeRefusal::WRONG_HOST_KEY));
}

// T10
TEST_CASE("a bundle without a host key enrols with whoever knows the token") {
  Meeting meeting(Kind::ENROLMENT);
  meeting.guestEnrolment().host = nullptr;
  CHECK(meeting.shakeHands() == nullptr);
}

// T11
TEST_CASE("a token that a guest's key has used is good for that key alone") {
  Meeting same(Kind::ENROLMENT), other(Kind::ENROLMENT);
  same.hostEnrolment().guest = same.guestEnrolment().own.publicKey();
  other.hostEnrolment().guest = GuestKeyPair::generate(other.random).publicKey();
  CHECK(same.shakeHands() == nullptr);
  CHECK(other.isRefused(Role::HOST, 3, HandshakeRefusal::WRONG_GUEST_KEY));
}

// T13
TEST_CASE("clones whose random generators agree have different ephemeral keys, for the host's nonce differs") {
  Meeting meeting(Kind::PAIR);
  auto& staticKey = meeting.credentials.get<GuestIdentity>().own.pair;
  TestRandom random(5), sameRandom(5), third(5), fourth(5);
  auto first = hedgedEphemeral(staticKey, random, meeting.guestSees);
  CHECK(hedgedEphemeral(staticKey, sameRandom, meeting.guestSees).publicKey == first.publicKey);
  auto otherNonce = meeting.guestSees;
  otherNonce.peer.nonce[31] ^= 1;
  CHECK(hedgedEphemeral(staticKey, third, otherNonce).publicKey != first.publicKey);
  // And a generator that an attacker knows does not give the key away: it depends on the static key too.
  auto otherStatic = GuestKeyPair::generate(meeting.random);
  CHECK(hedgedEphemeral(otherStatic.pair, fourth, meeting.guestSees).publicKey != first.publicKey);
}

}  // namespace
}  // namespace postern
