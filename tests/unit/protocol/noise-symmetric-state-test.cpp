#include "protocol/noise/symmetric-state.h"

#include <doctest/doctest.h>
#include <string.h>

namespace postern::noise {
namespace {

constexpr kj::StringPtr NAME = "Noise_NN_25519_ChaChaPoly_BLAKE2b, but long enough: 64 bytes...."_kj;

// What mixKey(INPUT) makes of a state that was begun with NAME.
struct Expected {
  kj::byte chainingKey[MAX_HASH_BYTES];
  kj::byte key[32];

  Expected() { hkdf(HashKind::BLAKE2B, NAME.asBytes(), "input"_kj.asBytes(), {chainingKey, key}); }
};

bool holds(const SymmetricState& state, kj::ArrayPtr<const kj::byte> secret) {
  return memmem(&state, sizeof(state), secret.begin(), secret.size()) != nullptr;
}

TEST_CASE("a protocol name that fits is the first hash itself, a longer one is hashed") {
  REQUIRE((NAME.size() == MAX_HASH_BYTES));
  SymmetricState fits(HashKind::BLAKE2B, NAME);
  CHECK((fits.handshakeHash() == NAME.asBytes()));

  SymmetricState isShorter(HashKind::BLAKE2B, kj::StringPtr("short"));
  kj::byte padded[MAX_HASH_BYTES] = {'s', 'h', 'o', 'r', 't'};
  CHECK((isShorter.handshakeHash() == kj::arrayPtr(padded, sizeof(padded))));

  SymmetricState isLonger(HashKind::SHA256, NAME);
  kj::byte hashed[32];
  hash(HashKind::SHA256, {NAME.asBytes()}, hashed);
  CHECK((isLonger.handshakeHash() == kj::arrayPtr(hashed, sizeof(hashed))));
}

TEST_CASE("split wipes chaining key and cipher key, and keeps the hash") {
  Expected expected;
  SymmetricState state(HashKind::BLAKE2B, NAME);
  state.mixHash("prologue"_kj.asBytes());
  CHECK(holds(state, NAME.asBytes()));
  state.mixKey("input"_kj.asBytes());
  CHECK(!holds(state, NAME.asBytes()));
  CHECK(holds(state, expected.chainingKey));
  CHECK(holds(state, expected.key));

  auto hashBefore = kj::heapArray(state.handshakeHash());
  auto keys = state.split();
  CHECK(!holds(state, expected.chainingKey));
  CHECK(!holds(state, expected.key));
  CHECK(!state.hasKey());
  CHECK((state.handshakeHash() == hashBefore));

  Secret<32> first;
  Secret<32> second;
  hkdf(HashKind::BLAKE2B, expected.chainingKey, nullptr, {first.asPtr(), second.asPtr()});
  CHECK(keys.initiatorToResponder.equals(first));
  CHECK(keys.responderToInitiator.equals(second));
}

TEST_CASE("wipe leaves nothing") {
  Expected expected;
  SymmetricState state(HashKind::BLAKE2B, NAME);
  state.mixKey("input"_kj.asBytes());
  state.wipe();
  CHECK(!holds(state, expected.chainingKey));
  CHECK(!holds(state, expected.key));
  CHECK((sodium_is_zero(state.handshakeHash().begin(), MAX_HASH_BYTES) == 1));
}

}  // namespace
}  // namespace postern::noise
