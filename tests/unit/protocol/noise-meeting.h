#pragma once
// Two HandshakeStates that meet in memory, for tests. Keys are fixed and fit each other; a test changes what it wants
// before begin(), and the messages on their way through a function.

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include "protocol/noise/handshake-state.h"

namespace postern::noise {

inline KeyPair keyPairOf(kj::byte seed) {
  Secret<KEY_BYTES> secret;
  memset(secret.begin(), seed, KEY_BYTES);
  return KeyPair::from(kj::mv(secret));
}

inline Secret<32> pskOf(kj::byte seed) {
  Secret<32> psk;
  memset(psk.begin(), seed, psk.SIZE);
  return psk;
}

inline Pattern patternOf(kj::StringPtr name) {
  return KJ_REQUIRE_NONNULL(Pattern::parse(name), name);
}

inline Side opposite(Side side) {
  return side == Side::INITIATOR ? Side::RESPONDER : Side::INITIATOR;
}

using Result = kj::OneOf<size_t, HandshakeError>;

// The error, or null.
inline kj::Maybe<HandshakeError> errorOf(Result result) {
  KJ_IF_MAYBE (error, result.tryGet<HandshakeError>()) return *error;
  return nullptr;
}

struct End {
  kj::byte prologue[3] = {1, 2, 3};
  KeyPair ephemeral;
  KeyPair own;
  PublicKey peer{};  // what this end takes for the other's static key
  kj::Vector<Secret<32>> psks;
  kj::Maybe<HandshakeState> state;

  HandshakeState& handshake() { return KJ_REQUIRE_NONNULL(state); }
};

struct Meeting {
  explicit Meeting(kj::StringPtr name) : pattern(patternOf(name)) {
    initiator.ephemeral = keyPairOf(11);
    responder.ephemeral = keyPairOf(12);
    initiator.own = keyPairOf(21);
    responder.own = keyPairOf(22);
    initiator.peer = responder.own.publicKey;
    responder.peer = initiator.own.publicKey;
    for (size_t i = 0; i < pattern.pskCount(); ++i) {
      initiator.psks.add(pskOf(kj::byte(31 + i)));
      responder.psks.add(pskOf(kj::byte(31 + i)));
    }
  }

  void begin() {
    begin(initiator, Side::INITIATOR);
    begin(responder, Side::RESPONDER);
  }

  void begin(End& end, Side side) {
    HandshakeKeys keys;
    if (pattern.sendsEphemeral(side)) {
      keys.ephemeral = KeyPair{end.ephemeral.secretKey.clone(), end.ephemeral.publicKey};
    }
    if (pattern.hasStatic(side)) keys.ownStatic = end.own;
    if (pattern.knowsStaticOf(opposite(side))) keys.peerStatic = end.peer;
    keys.psks = end.psks;
    end.state.emplace(pattern, HashKind::BLAKE2B, side, end.prologue, kj::mv(keys));
  }

  End& writer(size_t message) { return message % 2 == 0 ? initiator : responder; }
  End& reader(size_t message) { return message % 2 == 0 ? responder : initiator; }
  End& at(Side side) { return side == Side::INITIATOR ? initiator : responder; }

  // Both ends go through message `number`, which `change` may alter on its way. The error of either.
  kj::Maybe<HandshakeError> pass(size_t number, kj::FunctionParam<void(kj::Vector<kj::byte>&)> change) {
    kj::byte buffer[1024];
    auto written = writer(number).handshake().writeMessage(nullptr, buffer);
    KJ_IF_MAYBE (size, written.tryGet<size_t>()) {
      kj::Vector<kj::byte> bytes;
      bytes.addAll(kj::arrayPtr(buffer, *size));
      change(bytes);
      return errorOf(reader(number).handshake().readMessage(bytes, nullptr));
    }
    return errorOf(written);
  }
  kj::Maybe<HandshakeError> pass(size_t number) {
    return pass(number, [](auto&) {});
  }

  // Messages from..to-1, unchanged, all of which must succeed.
  void passAll(size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) REQUIRE((pass(i) == nullptr));
  }

  // The first message that either end refuses, with its error; null when the handshake went through.
  struct Refusal {
    size_t message;
    HandshakeError error;
  };
  kj::Maybe<Refusal> run() {
    for (size_t i = 0; i < pattern.messageCount(); ++i) {
      KJ_IF_MAYBE (error, pass(i)) return Refusal{i, *error};
    }
    return nullptr;
  }

  const Pattern pattern;
  End initiator;
  End responder;
};

// Every pattern of the table.
constexpr kj::StringPtr ALL_PATTERNS[] = {
    "N"_kj,    "K"_kj,   "X"_kj,   "NN"_kj,   "NK"_kj,   "NX"_kj,  "XN"_kj,  "XK"_kj,   "XX"_kj,  "KN"_kj,
    "KK"_kj,   "KX"_kj,  "IN"_kj,  "IK"_kj,   "IX"_kj,   "NK1"_kj, "NX1"_kj, "X1N"_kj,  "X1K"_kj, "XK1"_kj,
    "X1K1"_kj, "X1X"_kj, "XX1"_kj, "X1X1"_kj, "K1N"_kj,  "K1K"_kj, "KK1"_kj, "K1K1"_kj, "K1X"_kj, "KX1"_kj,
    "K1X1"_kj, "I1N"_kj, "I1K"_kj, "IK1"_kj,  "I1K1"_kj, "I1X"_kj, "IX1"_kj, "I1X1"_kj};

}  // namespace postern::noise
