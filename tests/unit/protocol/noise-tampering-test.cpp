// What a hostile peer, or somebody on the way, can do to a handshake: all of it must end in an error value.

#include <doctest/doctest.h>
#include <string.h>

#include <array>
#include <set>

#include "protocol/noise/handshake-state.h"
#include "tests/unit/protocol/noise-meeting.h"

namespace postern::noise {
namespace {

constexpr kj::StringPtr OURS[] = {"KKpsk0"_kj, "XXpsk0"_kj};

// A meeting at the point where message `number` is about to be written.
struct At : Meeting {
  At(kj::StringPtr name, size_t number) : Meeting(name) {
    begin();
    passAll(0, number);
  }
};

// T6
TEST_CASE("every changed byte of every message of Postern's patterns is refused by the read that it comes to") {
  for (auto name : OURS) {
    for (size_t number = 0; number < patternOf(name).messageCount(); ++number) {
      size_t size = At(name, number).writer(number).handshake().nextOverhead();
      for (size_t place = 0; place < size; ++place) {
        for (auto difference : {kj::byte(0x01), kj::byte(0x80), kj::byte(0xff)}) {
          CAPTURE(name.cStr());
          CAPTURE(number);
          CAPTURE(place);
          At meeting(name, number);
          auto error = meeting.pass(number, [&](auto& message) { message[place] ^= difference; });
          CHECK((error == HandshakeError::BAD_TAG));
          CHECK(meeting.reader(number).handshake().isDead());
        }
      }
    }
  }
}

TEST_CASE("where a first message has no tag, a changed byte is refused by the next read at the latest") {
  for (auto name : {"NN"_kj, "XX"_kj, "IX"_kj, "NX"_kj, "KN"_kj, "IKpsk2"_kj}) {
    size_t size = At(name, 0).initiator.handshake().nextOverhead();
    for (size_t place = 0; place < size; ++place) {
      CAPTURE(name.cStr());
      CAPTURE(place);
      At meeting(name, 0);
      auto error = meeting.pass(0, [&](auto& message) { message[place] ^= 1; });
      if (error == nullptr) error = meeting.pass(1);
      CHECK((error == HandshakeError::BAD_TAG));
    }
  }
}

// T6
TEST_CASE("every truncated message is refused") {
  for (auto name : OURS) {
    for (size_t number = 0; number < patternOf(name).messageCount(); ++number) {
      size_t size = At(name, number).writer(number).handshake().nextOverhead();
      for (size_t length = 0; length < size; ++length) {
        At meeting(name, number);
        auto error = meeting.pass(number, [&](auto& message) { message.resize(length); });
        CHECK((error == HandshakeError::BAD_LENGTH));
        CHECK(meeting.reader(number).handshake().isDead());
      }
    }
  }
}

TEST_CASE("a truncated payload is refused by its tag") {
  for (size_t cut = 1; cut <= 20; ++cut) {
    At meeting("KKpsk0", 0);
    const kj::byte payload[20] = {};
    kj::byte message[68];
    REQUIRE((meeting.initiator.handshake().writeMessage(payload, message).get<size_t>() == 68));
    kj::byte received[20];
    memset(received, 0xee, sizeof(received));
    auto result = meeting.responder.handshake().readMessage(kj::arrayPtr(message, 68 - cut), received);
    CHECK((errorOf(result) == HandshakeError::BAD_TAG));
  }
}

// T6
TEST_CASE("bytes behind a message are refused, whether or not there is room for them") {
  for (auto name : OURS) {
    for (size_t number = 0; number < patternOf(name).messageCount(); ++number) {
      for (size_t extra : {1, 2, 16, 48, 255}) {
        auto lengthen = [&](auto& message) {
          for (size_t i = 0; i < extra; ++i) message.add(kj::byte(0));
        };
        At strict(name, number);
        CHECK((strict.pass(number, lengthen) == HandshakeError::BAD_LENGTH));

        At roomy(name, number);
        kj::byte buffer[512];
        size_t size = roomy.writer(number).handshake().writeMessage(nullptr, buffer).get<size_t>();
        memset(buffer + size, 0, extra);
        kj::byte payload[256];
        memset(payload, 0xee, sizeof(payload));
        auto result = roomy.reader(number).handshake().readMessage(kj::arrayPtr(buffer, size + extra), payload);
        CHECK((errorOf(result) == HandshakeError::BAD_TAG));
      }
    }
  }
}

TEST_CASE("a message over the largest length is refused even if there is room") {
  At meeting("NN", 0);
  auto message = kj::heapArray<kj::byte>(MAX_MESSAGE_BYTES + 1);
  auto room = kj::heapArray<kj::byte>(MAX_MESSAGE_BYTES + 1);
  memset(message.begin(), 9, message.size());
  auto result = meeting.responder.handshake().readMessage(message, room);
  CHECK((errorOf(result) == HandshakeError::BAD_LENGTH));
}

TEST_CASE("nothing of a refused message is seen in the payload's buffer") {
  At meeting("KKpsk0", 0);
  kj::byte payload[32];
  memset(payload, 'p', sizeof(payload));
  kj::byte message[80];
  REQUIRE((meeting.initiator.handshake().writeMessage(payload, message).get<size_t>() == 80));
  message[79] ^= 1;
  kj::byte received[32];
  memset(received, 0xee, sizeof(received));
  auto result = meeting.responder.handshake().readMessage(message, received);
  CHECK((errorOf(result) == HandshakeError::BAD_TAG));
  CHECK(memchr(received, 'p', sizeof(received)) == nullptr);
}

void expectRefusal(Meeting& meeting, size_t message) {
  meeting.begin();
  KJ_IF_MAYBE (refusal, meeting.run()) {
    CHECK((refusal->error == HandshakeError::BAD_TAG));
    CHECK((refusal->message == message));
  } else {
    FAIL("the handshake went through");
  }
}

// T1, T2
TEST_CASE("another psk or prologue, at either end, is refused at the first message") {
  for (auto name : OURS) {
    for (auto side : {Side::INITIATOR, Side::RESPONDER}) {
      Meeting otherPsk(name);
      otherPsk.at(side).psks[0].begin()[31] ^= 1;
      expectRefusal(otherPsk, 0);

      Meeting otherPrologue(name);
      otherPrologue.at(side).prologue[2] ^= 1;
      expectRefusal(otherPrologue, 0);
    }
  }
}

// T1
TEST_CASE("another pinned static key, at either end, is refused at the first message") {
  for (auto side : {Side::INITIATOR, Side::RESPONDER}) {
    Meeting pinsAnother("KKpsk0");
    pinsAnother.at(side).peer = keyPairOf(99).publicKey;
    expectRefusal(pinsAnother, 0);

    Meeting hasAnother("KKpsk0");
    hasAnother.at(side).own = keyPairOf(99);
    expectRefusal(hasAnother, 0);
  }
}

// T1
TEST_CASE("who shows a static public key without having its private half is refused") {
  for (auto side : {Side::INITIATOR, Side::RESPONDER}) {
    Meeting kk("KKpsk0");
    kk.at(side).own.secretKey = keyPairOf(99).secretKey.clone();
    expectRefusal(kk, 0);

    // XX: the responder's key is proved by its own message, the initiator's by the third.
    Meeting xx("XXpsk0");
    xx.at(side).own.secretKey = keyPairOf(99).secretKey.clone();
    expectRefusal(xx, side == Side::RESPONDER ? 1 : 2);
  }
}

// T4
TEST_CASE("a first message is worth nothing to a responder whose prologue has another nonce: no replay") {
  Meeting first("KKpsk0");
  first.begin();
  kj::byte message[48];
  REQUIRE((first.initiator.handshake().writeMessage(nullptr, message).get<size_t>() == 48));

  Meeting second("KKpsk0");
  second.responder.prologue[0] = 77;
  second.begin();
  CHECK((errorOf(second.responder.handshake().readMessage(message, nullptr)) == HandshakeError::BAD_TAG));
}

// T15
TEST_CASE("a message reflected to its sender is refused") {
  Meeting meeting("KKpsk0");
  meeting.begin();
  kj::byte message[48];
  REQUIRE((meeting.initiator.handshake().writeMessage(nullptr, message).get<size_t>() == 48));
  CHECK((errorOf(meeting.initiator.handshake().readMessage(message, nullptr)) == HandshakeError::BAD_TAG));
}

// All encodings of points of low order on Curve25519 and its twist (https://cr.yp.to/ecdh.html#validate, below 2^255).
constexpr PublicKey LOW_ORDER[] = {
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

// The Diffie-Hellman that a key of `owner` enters first: at which message, and by which token. Null when none.
struct FirstUse {
  size_t message;
  Token token;
};
kj::Maybe<FirstUse> firstUseOf(const Pattern& pattern, Side owner, Token key) {
  bool ephemeral = key == Token::E;
  bool initiator = owner == Side::INITIATOR;
  for (size_t message = 0; message < pattern.messageCount(); ++message) {
    for (auto token : pattern.tokens(message)) {
      bool uses =
          token == (ephemeral ? Token::EE : Token::SS) || token == (ephemeral == initiator ? Token::ES : Token::SE);
      if (uses) return FirstUse{message, token};
    }
  }
  return nullptr;
}

// `owner` runs the protocol but shows a point of low order in place of its key.
FirstUse expectZeroSecret(kj::StringPtr name, Side owner, Token key, const PublicKey& point) {
  CAPTURE(name.cStr());
  CAPTURE(int(key));
  CAPTURE(int(owner));
  Meeting meeting(name);
  auto expected = KJ_ASSERT_NONNULL(firstUseOf(meeting.pattern, owner, key));
  (key == Token::E ? meeting.at(owner).ephemeral : meeting.at(owner).own).publicKey = point;
  meeting.at(opposite(owner)).peer = meeting.at(owner).own.publicKey;
  meeting.begin();

  auto& victim = meeting.at(opposite(owner)).handshake();
  KJ_IF_MAYBE (refusal, meeting.run()) {
    CHECK((refusal->error == HandshakeError::ZERO_SHARED_SECRET));
    CHECK((refusal->message == expected.message));
    CHECK(victim.isDead());
    CHECK(!meeting.at(owner).handshake().isDead());
  } else {
    FAIL("the handshake went through");
  }
  kj::byte buffer[256];
  CHECK((errorOf(victim.writeMessage(nullptr, buffer)) == HandshakeError::DEAD));
  return expected;
}

// T5
TEST_CASE("a point of low order in place of any key ends Postern's patterns, in each of its encodings") {
  for (auto name : OURS) {
    for (auto point : LOW_ORDER) {
      for (auto highBit : {kj::byte(0x00), kj::byte(0x80)}) {  // X25519 does not look at it
        point[31] = kj::byte(point[31] | highBit);
        for (auto owner : {Side::INITIATOR, Side::RESPONDER}) {
          expectZeroSecret(name, owner, Token::E, point);
          expectZeroSecret(name, owner, Token::S, point);
        }
      }
    }
  }
}

// T5
TEST_CASE("a point of low order ends every pattern at every Diffie-Hellman token, while reading and while writing") {
  std::set<std::pair<Token, bool>> seen;
  for (auto name : ALL_PATTERNS) {
    auto pattern = patternOf(name);
    for (auto owner : {Side::INITIATOR, Side::RESPONDER}) {
      for (auto key : {Token::E, Token::S}) {
        bool has = key == Token::E ? pattern.sendsEphemeral(owner) : pattern.hasStatic(owner);
        if (!has) continue;
        auto use = expectZeroSecret(name, owner, key, LOW_ORDER[0]);
        bool victimReads = (use.message % 2 == 0) == (owner == Side::INITIATOR);
        seen.insert({use.token, victimReads});
      }
    }
  }
  // ee, es, se while reading and writing. ss is first for an initiator's key alone, in a message that it sends itself.
  for (auto token : {Token::EE, Token::ES, Token::SE}) {
    CHECK((seen.count({token, true}) == 1));
    CHECK((seen.count({token, false}) == 1));
  }
  CHECK((seen.count({Token::SS, true}) == 1));
}

}  // namespace
}  // namespace postern::noise
