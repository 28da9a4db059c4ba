#include "protocol/noise/handshake-state.h"

#include <doctest/doctest.h>
#include <string.h>

#include <new>

#include "tests/unit/protocol/noise-meeting.h"

namespace postern::noise {
namespace {

TEST_CASE("both ends of every pattern finish with the same hash, the same keys and each other's static key") {
  for (auto base : ALL_PATTERNS) {
    for (auto modifiers : {""_kj, "psk0"_kj, "psk0+psk1"_kj}) {
      auto name = kj::str(base, modifiers);
      CAPTURE(name.cStr());
      Meeting meeting(name);
      meeting.begin();
      REQUIRE((meeting.run() == nullptr));

      auto& initiator = meeting.initiator.handshake();
      auto& responder = meeting.responder.handshake();
      CHECK(initiator.isFinished());
      CHECK(responder.isFinished());
      CHECK((initiator.handshakeHash() == responder.handshakeHash()));
      for (auto side : {Side::INITIATOR, Side::RESPONDER}) {
        auto seen = meeting.at(opposite(side)).handshake().peerStatic();
        CHECK((seen != nullptr) == meeting.pattern.hasStatic(side));
        KJ_IF_MAYBE (key, seen) CHECK((*key == meeting.at(side).own.publicKey));
      }

      auto ours = initiator.split();
      auto theirs = responder.split();
      CHECK(ours.initiatorToResponder.equals(theirs.initiatorToResponder));
      CHECK(ours.responderToInitiator.equals(theirs.responderToInitiator));
      CHECK(!ours.initiatorToResponder.equals(ours.responderToInitiator));
    }
  }
}

TEST_CASE("handshake messages of Postern's patterns have the sizes that the protocol promises") {
  Meeting kk("KKpsk0");
  kk.begin();
  CHECK((kk.initiator.handshake().nextOverhead() == 48));
  kk.passAll(0, 1);
  CHECK((kk.responder.handshake().nextOverhead() == 48));

  Meeting xx("XXpsk0");
  xx.begin();
  CHECK((xx.initiator.handshake().nextOverhead() == 48));
  xx.passAll(0, 1);
  CHECK((xx.responder.handshake().nextOverhead() == 96));
  xx.passAll(1, 2);
  CHECK((xx.initiator.handshake().nextOverhead() == 64));
}

TEST_CASE("the largest message goes through and a byte more is the writer's bug") {
  Meeting meeting("KKpsk0");
  meeting.begin();
  auto payload = kj::heapArray<kj::byte>(MAX_MESSAGE_BYTES - 48 + 1);
  memset(payload.begin(), 7, payload.size());
  auto message = kj::heapArray<kj::byte>(MAX_MESSAGE_BYTES + 1);
  CHECK_THROWS((void)meeting.initiator.handshake().writeMessage(payload, message));

  auto largest = payload.slice(0, payload.size() - 1);
  auto written = meeting.initiator.handshake().writeMessage(largest, message);
  REQUIRE((written.get<size_t>() == MAX_MESSAGE_BYTES));
  auto received = kj::heapArray<kj::byte>(MAX_MESSAGE_BYTES);
  auto read = meeting.responder.handshake().readMessage(message.slice(0, MAX_MESSAGE_BYTES), received);
  REQUIRE((read.get<size_t>() == largest.size()));
  CHECK((received.slice(0, largest.size()) == largest));
}

TEST_CASE("it is the initiator's turn on even messages, and nobody's at the end") {
  Meeting meeting("XXpsk0");
  meeting.begin();
  for (size_t i = 0; i < 3; ++i) {
    CHECK(meeting.writer(i).handshake().isWriting());
    CHECK(!meeting.writer(i).handshake().isReading());
    CHECK(meeting.reader(i).handshake().isReading());
    CHECK(!meeting.reader(i).handshake().isWriting());
    CHECK(!meeting.reader(i).handshake().isFinished());
    meeting.passAll(i, i + 1);
  }
  for (auto end : {&meeting.initiator, &meeting.responder}) {
    CHECK(end->handshake().isFinished());
    CHECK(!end->handshake().isWriting());
    CHECK(!end->handshake().isReading());
  }
}

TEST_CASE("a caller's bug is an exception and leaves the handshake as it was") {
  Meeting meeting("KKpsk0");
  meeting.begin();
  auto& initiator = meeting.initiator.handshake();
  kj::byte buffer[64];
  CHECK_THROWS((void)initiator.readMessage(kj::arrayPtr(buffer, 48), nullptr));
  CHECK_THROWS((void)initiator.writeMessage(nullptr, kj::arrayPtr(buffer, 47)));
  CHECK_THROWS((void)meeting.responder.handshake().writeMessage(nullptr, buffer));
  CHECK_THROWS(initiator.split());
  CHECK_THROWS(initiator.handshakeHash());

  CHECK((meeting.run() == nullptr));
  CHECK_THROWS((void)initiator.writeMessage(nullptr, buffer));
  CHECK_THROWS((void)initiator.readMessage(buffer, nullptr));
  CHECK_THROWS(initiator.nextOverhead());
  initiator.split();
  CHECK_THROWS(initiator.split());
  CHECK((initiator.handshakeHash() == meeting.responder.handshake().handshakeHash()));
}

TEST_CASE("an ephemeral key may come late, but not after it is needed and not twice") {
  auto own = keyPairOf(1);
  auto peer = keyPairOf(2);
  auto psk = pskOf(3);
  HandshakeState state(patternOf("KKpsk0"), HashKind::BLAKE2B, Side::INITIATOR, nullptr,
                       {nullptr, own, peer.publicKey, kj::arrayPtr(&psk, 1)});
  kj::byte out[64];
  CHECK_THROWS(state.provideEphemeral(KeyPair()));
  CHECK_THROWS((void)state.writeMessage(nullptr, out));
  HandshakeState late(patternOf("KKpsk0"), HashKind::BLAKE2B, Side::INITIATOR, nullptr,
                      {nullptr, own, peer.publicKey, kj::arrayPtr(&psk, 1)});
  late.provideEphemeral(keyPairOf(4));
  CHECK_THROWS(late.provideEphemeral(keyPairOf(4)));
  CHECK(late.writeMessage(nullptr, out).is<size_t>());
}

TEST_CASE("a key that the pattern needs and does not get, or gets and does not need, is the caller's bug") {
  auto own = keyPairOf(1);
  auto peer = keyPairOf(2);
  auto psk = pskOf(3);
  auto psks = kj::arrayPtr(&psk, 1);
  auto begin = [](kj::StringPtr name, Side side, HandshakeKeys keys) {
    HandshakeState state(patternOf(name), HashKind::BLAKE2B, side, nullptr, kj::mv(keys));
  };

  CHECK_NOTHROW(begin("KKpsk0", Side::INITIATOR, {keyPairOf(4), own, peer.publicKey, psks}));
  CHECK_THROWS(begin("KKpsk0", Side::INITIATOR, {KeyPair(), own, peer.publicKey, psks}));
  CHECK_THROWS(begin("KKpsk0", Side::INITIATOR, {keyPairOf(4), nullptr, peer.publicKey, psks}));
  CHECK_THROWS(begin("KKpsk0", Side::INITIATOR, {keyPairOf(4), own, nullptr, psks}));
  CHECK_THROWS(begin("KKpsk0", Side::INITIATOR, {keyPairOf(4), own, peer.publicKey, nullptr}));
  CHECK_THROWS(begin("KKpsk0+psk2", Side::INITIATOR, {keyPairOf(4), own, peer.publicKey, psks}));
  CHECK_THROWS(begin("KK", Side::INITIATOR, {keyPairOf(4), own, peer.publicKey, psks}));

  KeyPair empty;
  CHECK_THROWS(begin("XX", Side::RESPONDER, {keyPairOf(4), empty, nullptr, nullptr}));
  CHECK_THROWS(begin("XX", Side::RESPONDER, {keyPairOf(4), own, peer.publicKey, nullptr}));
  CHECK_THROWS(begin("NN", Side::RESPONDER, {keyPairOf(4), own, nullptr, nullptr}));
  CHECK_THROWS(begin("N", Side::RESPONDER, {keyPairOf(4), own, nullptr, nullptr}));
  CHECK_NOTHROW(begin("N", Side::RESPONDER, {nullptr, own, nullptr, nullptr}));
}

TEST_CASE("the two hashes of SHA-2 and BLAKE2b give different keys") {
  kj::Vector<Secret<32>> seen;
  for (auto hash : {HashKind::BLAKE2B, HashKind::SHA256, HashKind::SHA512}) {
    HandshakeState state(patternOf("N"), hash, Side::INITIATOR, nullptr,
                         {keyPairOf(1), nullptr, keyPairOf(2).publicKey, nullptr});
    kj::byte buffer[64];
    REQUIRE((state.writeMessage(nullptr, buffer).get<size_t>() == 48));
    CHECK((state.handshakeHash().size() == hashBytes(hash)));
    auto key = state.split().initiatorToResponder.clone();
    for (auto& other : seen) CHECK(!key.equals(other));
    seen.add(kj::mv(key));
  }
}

// Secrets have recognisable bytes, so that an object's memory can be searched for them.
bool holds(const void* object, kj::ArrayPtr<const kj::byte> secret) {
  return memmem(object, sizeof(HandshakeState), secret.begin(), secret.size()) != nullptr;
}

// T37
TEST_CASE("ephemeral key and psks are wiped with the last message, the session's keys never stay") {
  Meeting meeting("KKpsk0");
  meeting.begin();
  for (auto end : {&meeting.initiator, &meeting.responder}) {
    CHECK(holds(&end->handshake(), end->ephemeral.secretKey.asPtr()));
    CHECK(holds(&end->handshake(), end->psks[0].asPtr()));
  }
  REQUIRE((meeting.run() == nullptr));
  for (auto end : {&meeting.initiator, &meeting.responder}) {
    CHECK(!holds(&end->handshake(), end->ephemeral.secretKey.asPtr()));
    CHECK(!holds(&end->handshake(), end->psks[0].asPtr()));
    CHECK(!holds(&end->handshake(), end->own.secretKey.asPtr()));
    auto keys = end->handshake().split();
    CHECK(!holds(&end->handshake(), keys.initiatorToResponder.asPtr()));
    CHECK(!holds(&end->handshake(), keys.responderToInitiator.asPtr()));
  }
}

// T6
TEST_CASE("the first failure kills: keys are wiped, and every later message gives DEAD, the right one too") {
  Meeting meeting("KKpsk0");
  meeting.begin();
  kj::byte good[48];
  REQUIRE((meeting.initiator.handshake().writeMessage(nullptr, good).get<size_t>() == 48));
  kj::byte bad[48];
  memcpy(bad, good, sizeof(bad));
  bad[47] ^= 1;

  auto& responder = meeting.responder.handshake();
  CHECK((errorOf(responder.readMessage(bad, nullptr)) == HandshakeError::BAD_TAG));
  CHECK(responder.isDead());
  CHECK(!responder.isFinished());
  CHECK(!responder.isReading());
  CHECK(!responder.isWriting());
  CHECK(!holds(&responder, meeting.responder.ephemeral.secretKey.asPtr()));
  CHECK(!holds(&responder, meeting.responder.psks[0].asPtr()));

  kj::byte out[64];
  CHECK((errorOf(responder.readMessage(good, nullptr)) == HandshakeError::DEAD));
  CHECK((errorOf(responder.writeMessage(nullptr, out)) == HandshakeError::DEAD));
  CHECK((responder.peerStatic() == nullptr));
  CHECK_THROWS(responder.split());
  CHECK_THROWS(responder.handshakeHash());
  CHECK_THROWS(responder.nextOverhead());
}

// T37
TEST_CASE("a destroyed handshake leaves none of its keys in memory") {
  auto psk = pskOf(0x5a);
  auto own = keyPairOf(0x5b);
  auto peer = keyPairOf(0x5c);
  auto ephemeral = keyPairOf(0x5d);
  alignas(HandshakeState) kj::byte memory[sizeof(HandshakeState)];
  auto state = new (memory) HandshakeState(
      patternOf("KKpsk0"), HashKind::BLAKE2B, Side::INITIATOR, nullptr,
      {KeyPair{ephemeral.secretKey.clone(), ephemeral.publicKey}, own, peer.publicKey, kj::arrayPtr(&psk, 1)});
  CHECK(holds(memory, psk.asPtr()));
  CHECK(holds(memory, ephemeral.secretKey.asPtr()));
  state->~HandshakeState();
  CHECK(!holds(memory, psk.asPtr()));
  CHECK(!holds(memory, ephemeral.secretKey.asPtr()));
}

TEST_CASE("every error says something else, for the log") {
  kj::Vector<kj::StringPtr> texts;
  for (auto error : {HandshakeError::BAD_LENGTH, HandshakeError::BAD_TAG, HandshakeError::ZERO_SHARED_SECRET,
                     HandshakeError::DEAD}) {
    for (auto other : texts) CHECK((other != describe(error)));
    texts.add(describe(error));
  }
}

}  // namespace
}  // namespace postern::noise
