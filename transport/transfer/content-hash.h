#pragma once
// BLAKE2b-256 of a file's bytes, as it travels.

#include <kj/array.h>
#include <sodium.h>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

// `to` has HASH_BYTES.
inline void hashContent(kj::ArrayPtr<const kj::byte> content, kj::ArrayPtr<kj::byte> to) {
  crypto_generichash(to.begin(), HASH_BYTES, content.begin(), content.size(), nullptr, 0);
}

}  // namespace postern::transfer
