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

// What a vector says of one side.
struct SideOfVector {
  Bytes prologue;
  Bytes ephemeral;
  Bytes ownStatic;
  Bytes peerStatic;
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

Secret<32> secretFromHex(kj::StringPtr hex) {
  auto bytes = kj::decodeHex(hex);
  KJ_REQUIRE(!bytes.hadErrors && bytes.size() == 32, "psk is not 32 hexadecimal bytes");
  return Secret<32>(bytes);
}

KeyPair keyPairFrom(Bytes secretKey) {
  KJ_REQUIRE(secretKey.size() == 32, "private key is not 32 bytes");
  return KeyPair::from(Secret<32>(secretKey));
}

// One side: its keys, its handshake and, behind it, its two transport ciphers.
class Party {
 public:
  Party(const Protocol& protocol, Side side, const SideOfVector& given)
      : side(side), own(given.ownStatic.size() > 0 ? keyPairFrom(given.ownStatic) : KeyPair()) {
    if (given.psk.size() > 0) psks.add(secretFromHex(given.psk));
    for (auto psk : given.psks) psks.add(secretFromHex(psk));

    // Some files give more keys than the pattern has.
    HandshakeKeys keys;
    auto& pattern = protocol.pattern;
    if (pattern.sendsEphemeral(side)) keys.ephemeral = keyPairFrom(given.ephemeral);
    if (pattern.hasStatic(side)) keys.ownStatic = own;
    PublicKey peer;
    if (pattern.knowsStaticOf(side == Side::INITIATOR ? Side::RESPONDER : Side::INITIATOR)) {
      KJ_REQUIRE(given.peerStatic.size() == peer.size(), "the peer's static key is not 32 bytes");
      memcpy(peer.data(), given.peerStatic.begin(), peer.size());
      keys.peerStatic = peer;
    }
    keys.psks = psks;
    state.emplace(protocol.pattern, protocol.hash, side, given.prologue, kj::mv(keys));
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

void runHandshakeMessage(Party& sender, Party& receiver, vectors::Message::Reader message) {
  auto buffer = kj::heapArray<kj::byte>(message.getPayload().size() + sender.handshake().nextOverhead());
  size_t written = expectSize(sender.handshake().writeMessage(message.getPayload(), buffer), "not written");
  expectEqual(buffer.slice(0, written), message.getCiphertext(), "ciphertext differs");

  auto payload = kj::heapArray<kj::byte>(message.getPayload().size());
  size_t read = expectSize(receiver.handshake().readMessage(message.getCiphertext(), payload), "not read");
  expectEqual(payload.slice(0, read), message.getPayload(), "payload differs");
}

void runTransportMessage(CipherState& sending, CipherState& receiving, vectors::Message::Reader message) {
  auto ciphertext = kj::heapArray<kj::byte>(message.getPayload().size() + TAG_BYTES);
  sending.encrypt(nullptr, message.getPayload(), ciphertext);
  expectEqual(ciphertext, message.getCiphertext(), "transport ciphertext differs");

  auto payload = kj::heapArray<kj::byte>(message.getPayload().size());
  KJ_REQUIRE(receiving.decrypt(nullptr, message.getCiphertext(), payload), "transport message not read");
  expectEqual(payload, message.getPayload(), "transport payload differs");
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
  uint handshakeMessages = uint(protocol.pattern.messageCount());
  KJ_REQUIRE(messages.size() >= handshakeMessages, "fewer messages than the pattern has");

  for (uint i = 0; i < messages.size(); ++i) {
    KJ_CONTEXT("message", i);
    // Senders alternate, but behind a one-way pattern the responder never sends.
    bool initiatorSends = i % 2 == 0 || protocol.pattern.isOneWay();
    auto& sender = initiatorSends ? initiator : responder;
    auto& receiver = initiatorSends ? responder : initiator;
    if (i < handshakeMessages) {
      runHandshakeMessage(sender, receiver, messages[i]);
    } else {
      runTransportMessage(sender.sending, receiver.receiving, messages[i]);
    }

    if (i + 1 == handshakeMessages) {
      checkResults(initiator, responder, protocol.pattern, Side::RESPONDER, vector.getHandshakeHash());
      checkResults(responder, initiator, protocol.pattern, Side::INITIATOR, vector.getHandshakeHash());
      initiator.split();
      responder.split();
    }
  }
}

}  // namespace postern::noise
