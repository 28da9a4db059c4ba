#pragma once
// X25519 keys as Noise uses them (DHLEN = 32).

#include <kj/array.h>
#include <sodium.h>

#include <array>

#include "protocol/secret.h"

namespace postern::noise {

constexpr size_t KEY_BYTES = 32;
static_assert(KEY_BYTES == crypto_scalarmult_BYTES);

using PublicKey = std::array<kj::byte, KEY_BYTES>;

// Both halves of a key. The engine trusts that they belong together: it never derives a public key again.
struct KeyPair {
  Secret<KEY_BYTES> secretKey;
  PublicKey publicKey{};

  // Derives the public half: one scalar multiplication.
  static KeyPair from(Secret<KEY_BYTES> secretKey) {
    KeyPair pair;
    crypto_scalarmult_base(pair.publicKey.data(), secretKey.begin());
    pair.secretKey = kj::mv(secretKey);
    return pair;
  }
  // A deliberate copy; named so that it shows in a review.
  [[nodiscard]] KeyPair clone() const { return {secretKey.clone(), publicKey}; }
};

}  // namespace postern::noise
