#pragma once
// ContentHash: BLAKE2b-256, of a file's or a chunk's bytes as they come.

#include <sodium.h>
#include <string.h>

#include <kj/array.h>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

struct Hash {
  kj::byte bytes[HASH_BYTES] = {};

  bool operator==(const Hash& other) const { return memcmp(bytes, other.bytes, sizeof(bytes)) == 0; }
  kj::ArrayPtr<const kj::byte> asPtr() const { return kj::arrayPtr(bytes, sizeof(bytes)); }
};

class ContentHash {
 public:
  ContentHash() { crypto_generichash_init(&state, nullptr, 0, HASH_BYTES); }

  void update(kj::ArrayPtr<const kj::byte> bytes) { crypto_generichash_update(&state, bytes.begin(), bytes.size()); }
  Hash finish() {
    Hash result;
    crypto_generichash_final(&state, result.bytes, HASH_BYTES);
    return result;
  }

 private:
  crypto_generichash_state state;
};

}  // namespace postern::transfer
