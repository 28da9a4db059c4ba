#include "tests/noise/vector-run.h"

#include <kj/array.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/vector.h>

namespace postern::noise {
namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

constexpr kj::StringPtr PREFIX = "Noise_"_kj;
constexpr kj::StringPtr FAMILY = "25519_ChaChaPoly_"_kj;

// What a vector says of one side, in hexadecimal.
struct SideOfVector {
  kj::StringPtr prologue;
  kj::StringPtr ephemeral;
  kj::StringPtr ownStatic;
  kj::StringPtr peerStatic;
  capnp::List<capnp::Text>::Reader psks;
  kj::StringPtr psk;
};

SideOfVector initiatorOf(vectors::Vector::Reader vector) {
  return {vector.getInitPrologue(),     vector.getInitEphemeral(), vector.getInitStatic(),
          vector.getInitRemoteStatic(), vector.getInitPsks(),      vector.getInitPsk()};
}

SideOfVector responderOf(vectors::Vector::Reader vector) {
  return {vector.getRespPrologue(),     vector.getRespEphemeral(), vector.getRespStatic(),
          vector.getRespRemoteStatic(), vector.getRespPsks(),      vector.getRespPsk()};
}

kj::Array<kj::byte> bytesFrom(kj::StringPtr hex) {
  auto bytes = kj::decodeHex(hex);
  KJ_REQUIRE(!bytes.hadErrors && hex.size() % 2 == 0, "not hexadecimal", hex);
  return kj::mv(bytes);
}

kj::Array<kj::byte> keyFrom(kj::StringPtr hex) {
  auto bytes = bytesFrom(hex);
  KJ_REQUIRE(bytes.size() == KEY_BYTES, "key is not 32 bytes");
  return bytes;
}

KeyPair keyPairFrom(kj::StringPtr hex) {
  return KeyPair::from(Secret<KEY_BYTES>(keyFrom(hex)));
}

// One side: its keys, its handshake and, behind it, its two transport ciphers.
class Party {
 public:
  Party(const Protocol& protocol, Side side, const SideOfVector& given)
      : side(side), own(given.ownStatic.size() > 0 ? keyPairFrom(given.ownStatic) : KeyPair()) {
    if (given.psk.size() > 0) psks.add(keyFrom(given.psk));
    for (auto psk : given.psks) psks.add(keyFrom(psk));

    // Some files give more keys than the pattern has.
    HandshakeKeys keys;
    auto& pattern = protocol.pattern;
    if (pattern.sendsEphemeral(side)) keys.ephemeral = keyPairFrom(given.ephemeral);
    if (pattern.hasStatic(side)) keys.ownStatic = own;
    PublicKey peer;
    if (pattern.knowsStaticOf(side == Side::INITIATOR ? Side::RESPONDER : Side::INITIATOR)) {
      memcpy(peer.data(), keyFrom(given.peerStatic).begin(), peer.size());
      keys.peerStatic = peer;
    }
    keys.psks = psks;
    state.emplace(protocol.pattern, protocol.hash, side, bytesFrom(given.prologue), kj::mv(keys));
  }

  HandshakeState& handshake() { return KJ_ASSERT_NONNULL(state); }
  const PublicKey& ownPublicKey() const { return own.publicKey; }

  void split() {
    auto keys = handshake().split();
    bool initiator = side == Side::INITIATOR;
    sending.setKey(initiator ? keys.initiatorToResponder : keys.responderToInitiator);
    receiving.setKey(initiator ? keys.responderToInitiator : keys.initiatorToResponder);
  }

  CipherState sending;
  CipherState receiving;

 private:
  Side side;
  KeyPair own;
  kj::Vector<Secret<32>> psks;
  kj::Maybe<HandshakeState> state;
};

size_t expectSize(kj::OneOf<size_t, HandshakeError> result, kj::StringPtr what) {
  KJ_IF_MAYBE (error, result.tryGet<HandshakeError>()) {
    KJ_FAIL_REQUIRE(what, describe(*error));
  }
  return result.get<size_t>();
}

void expectEqual(Bytes actual, Bytes expected, kj::StringPtr what) {
  KJ_REQUIRE(actual == expected, what, kj::encodeHex(actual), kj::encodeHex(expected));
}

void runHandshakeMessage(Party& sender, Party& receiver, Bytes payload, Bytes ciphertext) {
  auto written = kj::heapArray<kj::byte>(payload.size() + sender.handshake().nextOverhead());
  size_t size = expectSize(sender.handshake().writeMessage(payload, written), "not written");
  expectEqual(written.slice(0, size), ciphertext, "ciphertext differs");

  auto read = kj::heapArray<kj::byte>(payload.size());
  size = expectSize(receiver.handshake().readMessage(ciphertext, read), "not read");
  expectEqual(read.slice(0, size), payload, "payload differs");
}

void runTransportMessage(CipherState& sending, CipherState& receiving, Bytes payload, Bytes ciphertext) {
  auto written = kj::heapArray<kj::byte>(payload.size() + TAG_BYTES);
  sending.encrypt(nullptr, payload, written);
  expectEqual(written, ciphertext, "transport ciphertext differs");

  auto read = kj::heapArray<kj::byte>(payload.size());
  KJ_REQUIRE(receiving.decrypt(nullptr, ciphertext, read), "transport message not read");
  expectEqual(read, payload, "transport payload differs");
}

void checkResults(Party& self, Party& peer, const Pattern& pattern, Side peerSide, Bytes expectedHash) {
  if (expectedHash.size() > 0) expectEqual(self.handshake().handshakeHash(), expectedHash, "handshake hash differs");
  if (pattern.hasStatic(peerSide)) {
    auto& key = KJ_REQUIRE_NONNULL(self.handshake().peerStatic(), "the peer's static key is not known");
    KJ_REQUIRE(key == peer.ownPublicKey(), "the peer's static key differs");
  }
}

}  // namespace

kj::OneOf<Protocol, kj::StringPtr> parseProtocol(kj::StringPtr name) {
  if (!name.startsWith(PREFIX)) return "an older syntax"_kj;
  auto rest = name.slice(PREFIX.size());
  KJ_IF_MAYBE (end, rest.findFirst('_')) {
    auto pattern = Pattern::parse(kj::heapString(rest.slice(0, *end)));
    auto family = rest.slice(*end + 1);
    if (!family.startsWith(FAMILY)) return "another DH or cipher"_kj;
    KJ_IF_MAYBE (hash, parseHashName(family.slice(FAMILY.size()))) {
      KJ_IF_MAYBE (known, pattern) {
        return Protocol{*known, *hash};
      }
      return "another pattern or modifier"_kj;
    }
    return "another hash"_kj;
  }
  return "an older syntax"_kj;
}

void runVector(const Protocol& protocol, vectors::Vector::Reader vector) {
  Party initiator(protocol, Side::INITIATOR, initiatorOf(vector));
  Party responder(protocol, Side::RESPONDER, responderOf(vector));
  auto messages = vector.getMessages();
  auto expectedHash = bytesFrom(vector.getHandshakeHash());
  uint handshakeMessages = uint(protocol.pattern.messageCount());
  KJ_REQUIRE(messages.size() >= handshakeMessages, "fewer messages than the pattern has");

  for (uint i = 0; i < messages.size(); ++i) {
    KJ_CONTEXT("message", i);
    // Senders alternate, but behind a one-way pattern the responder never sends.
    bool initiatorSends = i % 2 == 0 || protocol.pattern.isOneWay();
    auto& sender = initiatorSends ? initiator : responder;
    auto& receiver = initiatorSends ? responder : initiator;
    auto payload = bytesFrom(messages[i].getPayload());
    auto ciphertext = bytesFrom(messages[i].getCiphertext());
    if (i < handshakeMessages) {
      runHandshakeMessage(sender, receiver, payload, ciphertext);
    } else {
      runTransportMessage(sender.sending, receiver.receiving, payload, ciphertext);
    }

    if (i + 1 == handshakeMessages) {
      checkResults(initiator, responder, protocol.pattern, Side::RESPONDER, expectedHash);
      checkResults(responder, initiator, protocol.pattern, Side::INITIATOR, expectedHash);
      initiator.split();
      responder.split();
    }
  }
}

}  // namespace postern::noise
