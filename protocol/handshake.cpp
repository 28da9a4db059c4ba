#include "protocol/handshake.h"

#include <kj/debug.h>
#include <string.h>

#include <bit>

#include "protocol/wire-int.h"

namespace postern {

namespace {

constexpr char CONTEXT[] = "postern/1 session";
constexpr kj::byte GUEST_INITIATES = 1;
constexpr uint32_t BUILT_SUITES = SUITE_CHACHAPOLY_BLAKE2B;
constexpr uint32_t BUILT_PATTERNS = PATTERN_KKPSK0 | PATTERN_XXPSK0;

struct Prologue {
  kj::byte bytes[sizeof(CONTEXT) + 4 + 4 + 16 + 1 + 2 * HELLO_PROLOGUE_BYTES];

  // T2, T3, T4
  Prologue(const HelloPair& hellos, uint32_t pattern, uint32_t suite, const VmId& vm) {
    auto* out = bytes;
    auto append = [&out](const void* from, size_t size) {
      memcpy(out, from, size);
      out += size;
    };
    append(CONTEXT, sizeof(CONTEXT));
    putLittleEndian<uint32_t>(pattern, out);
    out += 4;
    putLittleEndian<uint32_t>(suite, out);
    out += 4;
    append(vm.bytes.data(), vm.bytes.size());
    *out++ = GUEST_INITIATES;
    append(hellos.guestBytes().begin(), HELLO_PROLOGUE_BYTES);
    append(hellos.hostBytes().begin(), HELLO_PROLOGUE_BYTES);
    KJ_ASSERT(out == bytes + sizeof(bytes));
  }
};

// The one pattern that the guest asks for, if the host offers it and we have it built.
// T9
kj::Maybe<uint32_t> choosePattern(const HelloPair& hellos) {
  uint32_t wanted = hellos.guest().patterns;
  if (std::popcount(wanted) != 1 || (wanted & BUILT_PATTERNS & hellos.host().patterns) == 0) return nullptr;
  return wanted;
}

kj::Maybe<uint32_t> chooseSuite(const HelloPair& hellos) {
  if ((hellos.guest().suites & hellos.host().suites & BUILT_SUITES) == 0) return nullptr;
  return SUITE_CHACHAPOLY_BLAKE2B;
}

const noise::Pattern& patternFor(uint32_t bit) {
  static const noise::Pattern kkPsk0 = KJ_ASSERT_NONNULL(noise::Pattern::parse("KKpsk0"));
  static const noise::Pattern xxPsk0 = KJ_ASSERT_NONNULL(noise::Pattern::parse("XXpsk0"));
  return bit == PATTERN_KKPSK0 ? kkPsk0 : xxPsk0;
}

HandshakeRefusal refusalFor(noise::HandshakeError error) {
  switch (error) {
    case noise::HandshakeError::BAD_LENGTH:
      return HandshakeRefusal::BAD_LENGTH;
    case noise::HandshakeError::BAD_TAG:
      return HandshakeRefusal::BAD_TAG;
    case noise::HandshakeError::ZERO_SHARED_SECRET:
      return HandshakeRefusal::ZERO_SHARED_SECRET;
    case noise::HandshakeError::DEAD:
      return HandshakeRefusal::UNEXPECTED_MESSAGE;
  }
  KJ_UNREACHABLE;
}

}  // namespace

struct Handshake::Parts {
  const HelloPair& hellos;
  uint32_t pattern;
  uint32_t suite;
  const VmId& vm;
  const noise::KeyPair& own;
  kj::Maybe<const noise::PublicKey&> knownPeer;  // KKpsk0
  kj::Maybe<noise::PublicKey> pinnedPeer;        // XXpsk0
  const Secret<32>& psk;
  Random& random;
};

namespace {

noise::HandshakeKeys noiseKeys(const Handshake::Parts& parts) {
  return {nullptr, parts.own, parts.knownPeer, kj::arrayPtr(&parts.psk, 1)};
}

template <typename Key>
kj::Maybe<noise::PublicKey> rawKey(const kj::Maybe<Key>& key) {
  KJ_IF_MAYBE (k, key) {
    return k->bytes;
  }
  return nullptr;
}

}  // namespace

// T1
Handshake::Handshake(Parts&& parts)
    : pair(parts.hellos),
      enrolment(parts.pattern == PATTERN_XXPSK0),
      ownStatic(parts.own),
      random(parts.random),
      pinnedPeer(parts.pinnedPeer),
      noise(patternFor(parts.pattern), noise::HashKind::BLAKE2B,
            parts.hellos.self == Role::GUEST ? noise::Side::INITIATOR : noise::Side::RESPONDER,
            Prologue(parts.hellos, parts.pattern, parts.suite, parts.vm).bytes, noiseKeys(parts)) {}

kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> Handshake::begin(const HelloPair& hellos,
                                                                 const GuestCredentials& credentials, Random& random) {
  KJ_REQUIRE(hellos.self == Role::GUEST);
  uint32_t suite = 0, pattern = 0;
  KJ_IF_MAYBE (chosen, chooseSuite(hellos)) {
    suite = *chosen;
  } else {
    return HandshakeRefusal::NO_COMMON_SUITE;
  }
  KJ_IF_MAYBE (chosen, choosePattern(hellos)) {
    pattern = *chosen;
  } else {
    return HandshakeRefusal::NO_COMMON_PATTERN;
  }
  KJ_SWITCH_ONEOF(credentials) {
    KJ_CASE_ONEOF(identity, GuestIdentity) {
      KJ_REQUIRE(pattern == PATTERN_KKPSK0, "HELLO was not made from these credentials");
      return kj::heap<Handshake>(Parts{hellos, pattern, suite, identity.vm, identity.own.pair, identity.host.bytes,
                                       nullptr, identity.linkSecret.bytes, random});
    }
    KJ_CASE_ONEOF(enrolment, GuestEnrolment) {
      KJ_REQUIRE(pattern == PATTERN_XXPSK0, "HELLO was not made from these credentials");
      return kj::heap<Handshake>(Parts{hellos, pattern, suite, enrolment.vm, enrolment.own.pair, nullptr,
                                       rawKey(enrolment.host), enrolment.token.bytes, random});
    }
  }
  KJ_UNREACHABLE;
}

kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> Handshake::begin(const HelloPair& hellos, HostKeyring& keyring,
                                                                 Random& random) {
  KJ_REQUIRE(hellos.self == Role::HOST);
  uint32_t suite = 0, pattern = 0;
  KJ_IF_MAYBE (chosen, chooseSuite(hellos)) {
    suite = *chosen;
  } else {
    return HandshakeRefusal::NO_COMMON_SUITE;
  }
  KJ_IF_MAYBE (chosen, choosePattern(hellos)) {
    pattern = *chosen;
  } else {
    return HandshakeRefusal::NO_COMMON_PATTERN;
  }
  if (pattern == PATTERN_KKPSK0) {
    KJ_IF_MAYBE (identity, keyring.identityFor(hellos.guest().keyHint)) {
      return kj::heap<Handshake>(Parts{hellos, pattern, suite, identity->vm, identity->own.pair, identity->guest.bytes,
                                       nullptr, identity->linkSecret.bytes, random});
    }
  } else {
    KJ_IF_MAYBE (enrolment, keyring.enrolmentFor(hellos.guest().tokenHint)) {
      return kj::heap<Handshake>(Parts{hellos, pattern, suite, enrolment->vm, enrolment->own.pair, nullptr,
                                       rawKey(enrolment->guest), enrolment->token.bytes, random});
    }
  }
  return HandshakeRefusal::UNKNOWN_HINT;
}

kj::OneOf<Handshake::Message, HandshakeRefusal> Handshake::write() {
  KJ_REQUIRE(isWriting());
  if (!hasEphemeral) {
    // Only now: a forged first message has been refused by here; of XXpsk0, without a scalar multiplication if it lacks
    // the psk.
    noise.provideEphemeral(hedgedEphemeral(ownStatic, random, pair));
    hasEphemeral = true;
  }
  Message message;
  auto result = noise.writeMessage(nullptr, message.bytes);
  if (result.is<noise::HandshakeError>()) return refusalFor(result.get<noise::HandshakeError>());
  message.size = result.get<size_t>();
  return message;
}

kj::Maybe<HandshakeRefusal> Handshake::read(Bytes untrustedMessage) {
  if (!noise.isReading()) return HandshakeRefusal::UNEXPECTED_MESSAGE;
  // No room for a payload: one that is there is BAD_LENGTH.
  auto result = noise.readMessage(untrustedMessage, nullptr);
  if (result.is<noise::HandshakeError>()) return refusalFor(result.get<noise::HandshakeError>());
  // T10, T11
  KJ_IF_MAYBE (pinned, pinnedPeer) {
    KJ_IF_MAYBE (peer, noise.peerStatic()) {
      if (*peer != *pinned) {
        return pair.self == Role::GUEST ? HandshakeRefusal::WRONG_HOST_KEY : HandshakeRefusal::WRONG_GUEST_KEY;
      }
    }
  }
  return nullptr;
}

HandshakeResult Handshake::finish() {
  KJ_REQUIRE(isFinished());
  bool isGuest = pair.self == Role::GUEST;
  const auto& peer = KJ_ASSERT_NONNULL(noise.peerStatic());
  HandshakeResult result;
  result.enrolment = enrolment;
  result.host.bytes = isGuest ? peer : ownStatic.publicKey;
  result.guest.bytes = isGuest ? ownStatic.publicKey : peer;
  auto hash = noise.handshakeHash();
  KJ_ASSERT(hash.size() == result.handshakeHash.size());
  memcpy(result.handshakeHash.data(), hash.begin(), hash.size());
  auto keys = noise.split();
  result.sealing.bytes = kj::mv(isGuest ? keys.initiatorToResponder : keys.responderToInitiator);
  result.opening.bytes = kj::mv(isGuest ? keys.responderToInitiator : keys.initiatorToResponder);
  return result;
}

kj::StringPtr describe(HandshakeRefusal refusal) {
  switch (refusal) {
    case HandshakeRefusal::NO_COMMON_SUITE:
      return "no cipher suite in common";
    case HandshakeRefusal::NO_COMMON_PATTERN:
      return "no handshake pattern in common";
    case HandshakeRefusal::UNKNOWN_HINT:
      return "no key or token of this VM fits";
    case HandshakeRefusal::BAD_LENGTH:
      return "handshake message of a wrong length";
    case HandshakeRefusal::BAD_TAG:
      return "handshake message that does not authenticate (wrong key, token or VM)";
    case HandshakeRefusal::ZERO_SHARED_SECRET:
      return "public key of low order";
    case HandshakeRefusal::UNEXPECTED_MESSAGE:
      return "handshake message out of turn";
    case HandshakeRefusal::WRONG_HOST_KEY:
      return "the host's key is not the one in the bundle";
    case HandshakeRefusal::WRONG_GUEST_KEY:
      return "the token was already used by another guest";
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
