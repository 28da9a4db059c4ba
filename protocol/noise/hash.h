#pragma once
// The hash functions of Noise (sections 4.3 and 12) over libsodium: HASH, HMAC-HASH and HKDF. Works on the stack alone;
// every intermediate value is wiped, since most are key material.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::noise {

// The names are the specification's (hashName()). BLAKE2s is not built: libsodium lacks it and Postern does not use it.
enum class HashKind : uint8_t { BLAKE2B, SHA256, SHA512 };

constexpr size_t MAX_HASH_BYTES = 64;

size_t hashBytes(HashKind kind);       // HASHLEN
size_t hashBlockBytes(HashKind kind);  // BLOCKLEN
kj::StringPtr hashName(HashKind kind);
kj::Maybe<HashKind> parseHashName(kj::StringPtr name);

using Pieces = kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>;

// Hash of all pieces in sequence. `out` has hashBytes(kind) bytes and may be one of the pieces.
void hash(HashKind kind, Pieces pieces, kj::ArrayPtr<kj::byte> out);

// RFC 2104. The key has at most hashBlockBytes(kind) bytes. `out` as above.
void hmac(HashKind kind, kj::ArrayPtr<const kj::byte> key, Pieces pieces, kj::ArrayPtr<kj::byte> out);

// Two or three outputs. Each takes the first bytes of its HASHLEN, as many as it has room for: that is how Noise
// shortens keys to 32 bytes. An output may be the chaining key or the input itself.
void hkdf(HashKind kind, kj::ArrayPtr<const kj::byte> chainingKey, kj::ArrayPtr<const kj::byte> inputKeyMaterial,
          kj::ArrayPtr<const kj::ArrayPtr<kj::byte>> outputs);

}  // namespace postern::noise
