#include "protocol/noise/handshake-state.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

namespace postern::noise {
namespace {

using Bytes = HandshakeState::Bytes;

Bytes bytesOf(const PublicKey& key) {
  return kj::arrayPtr(key.data(), key.size());
}

Side other(Side side) {
  return side == Side::INITIATOR ? Side::RESPONDER : Side::INITIATOR;
}

// Takes the first bytes off.
template <typename T>
kj::ArrayPtr<T> take(kj::ArrayPtr<T>& rest, size_t size) {
  auto front = rest.slice(0, size);
  rest = rest.slice(size, rest.size());
  return front;
}

// "Noise_KKpsk0_25519_ChaChaPoly_BLAKE2b" (section 8).
class ProtocolName {
 public:
  ProtocolName(const Pattern& pattern, HashKind hash) {
    add("Noise_");
    length += pattern.writeName(kj::arrayPtr(text + length, MAX_PATTERN_NAME));
    add("_25519_ChaChaPoly_");
    add(hashName(hash));
  }
  kj::ArrayPtr<const char> asPtr() const { return kj::arrayPtr(text, length); }

 private:
  char text[MAX_PATTERN_NAME + 32];
  size_t length = 0;

  void add(kj::StringPtr part) {
    memcpy(text + length, part.begin(), part.size());
    length += part.size();
  }
};

}  // namespace

kj::StringPtr describe(HandshakeError error) {
  switch (error) {
    case HandshakeError::BAD_LENGTH:
      return "handshake message of a wrong length";
    case HandshakeError::BAD_TAG:
      return "handshake message does not authenticate";
    case HandshakeError::ZERO_SHARED_SECRET:
      return "public key of low order";
    case HandshakeError::DEAD:
      return "handshake failed earlier";
  }
  KJ_UNREACHABLE;
}

HandshakeState::HandshakeState(Pattern pattern, HashKind hash, Side side, Bytes prologue, HandshakeKeys keys)
    : pattern(pattern), side(side), symmetric(hash, ProtocolName(pattern, hash).asPtr()) {
  takeKeys(kj::mv(keys));
  symmetric.mixHash(prologue);
  mixPreMessages();
}

void HandshakeState::takeKeys(HandshakeKeys keys) {
  KJ_IF_MAYBE (pair, keys.ephemeral) {
    provideEphemeral(kj::mv(*pair));
  }

  KJ_IF_MAYBE (pair, keys.ownStatic) {
    KJ_REQUIRE(pattern.hasStatic(side), "this side of the pattern has no static key");
    KJ_REQUIRE(!pair->secretKey.isZero(), "static key is empty");
    ownStatic = pair;
  } else {
    KJ_REQUIRE(!pattern.hasStatic(side), "static key is missing");
  }

  KJ_IF_MAYBE (key, keys.peerStatic) {
    KJ_REQUIRE(pattern.knowsStaticOf(other(side)), "the peer's static key is not a pre-message of the pattern");
    peerStaticKey = *key;
    hasPeerStatic = true;
  } else {
    KJ_REQUIRE(!pattern.knowsStaticOf(other(side)), "the peer's static key is missing");
  }

  KJ_REQUIRE(keys.psks.size() == pattern.pskCount(), "number of psks is not the pattern's");
  for (size_t i = 0; i < keys.psks.size(); ++i) psks[i] = keys.psks[i].clone();
}

void HandshakeState::provideEphemeral(KeyPair pair) {
  KJ_REQUIRE(pattern.sendsEphemeral(side), "this side of the pattern has no ephemeral key");
  KJ_REQUIRE(!pair.secretKey.isZero(), "ephemeral key is empty");
  KJ_REQUIRE(ephemeral.secretKey.isZero(), "ephemeral key was given before");
  ephemeral = kj::mv(pair);
}

void HandshakeState::mixPreMessages() {
  for (auto owner : {Side::INITIATOR, Side::RESPONDER}) {
    if (!pattern.knowsStaticOf(owner)) continue;
    symmetric.mixHash(bytesOf(owner == side ? ownStatic->publicKey : peerStaticKey));
  }
}

bool HandshakeState::isMyTurn(Turn turn) const {
  if (dead || isFinished()) return false;
  bool initiatorSends = message % 2 == 0;
  bool sending = initiatorSends == (side == Side::INITIATOR);
  return sending == (turn == Turn::WRITE);
}

size_t HandshakeState::nextOverhead() const {
  KJ_REQUIRE(!dead && !isFinished());
  size_t size = 0;
  bool keyed = symmetric.hasKey();
  for (auto token : pattern.tokens(message)) {
    switch (token) {
      case Token::E:
        size += KEY_BYTES;
        keyed = keyed || pattern.usesPsk();
        break;
      case Token::S:
        size += KEY_BYTES + (keyed ? TAG_BYTES : 0);
        break;
      default:
        keyed = true;
    }
  }
  return size + (keyed ? TAG_BYTES : 0);
}

kj::OneOf<size_t, HandshakeError> HandshakeState::writeMessage(Bytes payload, kj::ArrayPtr<kj::byte> out) {
  if (dead) return HandshakeError::DEAD;
  KJ_REQUIRE(isWriting(), "not this side's turn to write");
  size_t size = nextOverhead() + payload.size();
  KJ_REQUIRE(payload.size() <= MAX_MESSAGE_BYTES && size <= MAX_MESSAGE_BYTES, "payload is too long");
  KJ_REQUIRE(out.size() >= size, "no room for the message");

  auto rest = out.slice(0, size);
  for (auto token : pattern.tokens(message)) {
    if (token == Token::E || token == Token::S) {
      writeKey(token, rest);
    } else {
      KJ_IF_MAYBE (error, mixSecret(token)) {
        // Half a message is of no use to anybody.
        sodium_memzero(out.begin(), size);
        return fail(*error);
      }
    }
  }
  symmetric.encryptAndHash(payload, rest);
  finishMessage();
  return size;
}

void HandshakeState::writeKey(Token token, kj::ArrayPtr<kj::byte>& rest) {
  if (token == Token::E) {
    KJ_REQUIRE(!ephemeral.secretKey.isZero(), "ephemeral key is missing");
    memcpy(take(rest, KEY_BYTES).begin(), ephemeral.publicKey.data(), KEY_BYTES);
    mixEphemeral(ephemeral.publicKey);
  } else {
    auto out = take(rest, KEY_BYTES + symmetric.overhead());
    symmetric.encryptAndHash(bytesOf(ownStatic->publicKey), out);
  }
}

kj::OneOf<size_t, HandshakeError> HandshakeState::readMessage(Bytes untrustedMessage,
                                                              kj::ArrayPtr<kj::byte> payloadOut) {
  if (dead) return HandshakeError::DEAD;
  KJ_REQUIRE(isReading(), "not this side's turn to read");
  size_t overhead = nextOverhead();
  if (untrustedMessage.size() < overhead || untrustedMessage.size() > MAX_MESSAGE_BYTES ||
      untrustedMessage.size() - overhead > payloadOut.size()) {
    return fail(HandshakeError::BAD_LENGTH);
  }

  // From here on every part has its length: they add up to the overhead.
  size_t payloadSize = untrustedMessage.size() - overhead;
  auto rest = untrustedMessage;
  for (auto token : pattern.tokens(message)) {
    if (token == Token::E || token == Token::S) {
      if (!readKey(token, rest)) return fail(HandshakeError::BAD_TAG);
    } else {
      KJ_IF_MAYBE (error, mixSecret(token)) {
        return fail(*error);
      }
    }
  }
  if (!symmetric.decryptAndHash(rest, payloadOut.slice(0, payloadSize))) return fail(HandshakeError::BAD_TAG);
  finishMessage();
  return payloadSize;
}

bool HandshakeState::readKey(Token token, Bytes& untrustedRest) {
  if (token == Token::E) {
    memcpy(peerEphemeral.data(), take(untrustedRest, KEY_BYTES).begin(), KEY_BYTES);
    mixEphemeral(peerEphemeral);
    return true;
  }
  auto part = take(untrustedRest, KEY_BYTES + symmetric.overhead());
  hasPeerStatic = symmetric.decryptAndHash(part, kj::arrayPtr(peerStaticKey.data(), KEY_BYTES));
  return hasPeerStatic;
}

void HandshakeState::mixEphemeral(const PublicKey& key) {
  symmetric.mixHash(bytesOf(key));
  if (pattern.usesPsk()) symmetric.mixKey(bytesOf(key));
}

kj::Maybe<HandshakeError> HandshakeState::mixSecret(Token token) {
  bool initiator = side == Side::INITIATOR;
  switch (token) {
    case Token::EE:
      return mixSharedSecret(ephemeral, peerEphemeral);
    case Token::ES:
      return initiator ? mixSharedSecret(ephemeral, peerStaticKey) : mixSharedSecret(*ownStatic, peerEphemeral);
    case Token::SE:
      return initiator ? mixSharedSecret(*ownStatic, peerEphemeral) : mixSharedSecret(ephemeral, peerStaticKey);
    case Token::SS:
      return mixSharedSecret(*ownStatic, peerStaticKey);
    case Token::PSK:
      symmetric.mixKeyAndHash(psks[usedPsks++].asPtr());
      return nullptr;
    default:
      KJ_FAIL_ASSERT("not a token that mixes a secret", uint(token));
  }
}

kj::Maybe<HandshakeError> HandshakeState::mixSharedSecret(const KeyPair& own, const PublicKey& peer) {
  Secret<32> shared;
  // T5
  if (crypto_scalarmult(shared.begin(), own.secretKey.begin(), peer.data()) != 0) {
    return HandshakeError::ZERO_SHARED_SECRET;
  }
  symmetric.mixKey(shared.asPtr());
  return nullptr;
}

// T6
HandshakeError HandshakeState::fail(HandshakeError error) {
  dead = true;
  hasPeerStatic = false;
  wipeEphemeralSecrets();
  symmetric.wipe();
  return error;
}

void HandshakeState::finishMessage() {
  ++message;
  if (isFinished()) wipeEphemeralSecrets();
}

// T37
void HandshakeState::wipeEphemeralSecrets() {
  ephemeral.secretKey.wipe();
  for (auto& psk : psks) psk.wipe();
}

kj::Maybe<const PublicKey&> HandshakeState::peerStatic() const {
  if (!hasPeerStatic) return nullptr;
  return peerStaticKey;
}

SessionKeys HandshakeState::split() {
  KJ_REQUIRE(isFinished() && !hasSplit);
  hasSplit = true;
  return symmetric.split();
}

Bytes HandshakeState::handshakeHash() const {
  KJ_REQUIRE(isFinished());
  return symmetric.handshakeHash();
}

}  // namespace postern::noise
