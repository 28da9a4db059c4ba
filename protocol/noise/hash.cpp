#include "protocol/noise/hash.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/secret.h"

namespace postern::noise {
namespace {

constexpr size_t MAX_BLOCK_BYTES = 128;

// A hash in progress. Wiped at its end, since it is keyed more often than not.
class Hasher {
 public:
  explicit Hasher(HashKind kind) : kind(kind) {
    switch (kind) {
      case HashKind::BLAKE2B:
        crypto_generichash_blake2b_init(&state.blake2b, nullptr, 0, MAX_HASH_BYTES);
        break;
      case HashKind::SHA256:
        crypto_hash_sha256_init(&state.sha256);
        break;
      case HashKind::SHA512:
        crypto_hash_sha512_init(&state.sha512);
        break;
    }
  }
  Hasher(const Hasher&) = default;
  Hasher& operator=(const Hasher&) = delete;
  ~Hasher() { sodium_memzero(&state, sizeof(state)); }

  void add(kj::ArrayPtr<const kj::byte> data) {
    switch (kind) {
      case HashKind::BLAKE2B:
        crypto_generichash_blake2b_update(&state.blake2b, data.begin(), data.size());
        break;
      case HashKind::SHA256:
        crypto_hash_sha256_update(&state.sha256, data.begin(), data.size());
        break;
      case HashKind::SHA512:
        crypto_hash_sha512_update(&state.sha512, data.begin(), data.size());
        break;
    }
  }

  void add(Pieces pieces) {
    for (auto piece : pieces) add(piece);
  }

  // `out` has hashBytes(kind) bytes. Nothing can be added afterwards.
  void finish(kj::byte* out) {
    switch (kind) {
      case HashKind::BLAKE2B:
        crypto_generichash_blake2b_final(&state.blake2b, out, MAX_HASH_BYTES);
        break;
      case HashKind::SHA256:
        crypto_hash_sha256_final(&state.sha256, out);
        break;
      case HashKind::SHA512:
        crypto_hash_sha512_final(&state.sha512, out);
        break;
    }
  }

 private:
  HashKind kind;
  union State {
    crypto_generichash_blake2b_state blake2b;
    crypto_hash_sha256_state sha256;
    crypto_hash_sha512_state sha512;
  } state;
};

// HMAC with the key's two blocks hashed once, for the three calls that HKDF makes with one key.
class KeyedHmac {
 public:
  KeyedHmac(HashKind kind, kj::ArrayPtr<const kj::byte> key) : kind(kind), inner(kind), outer(kind) {
    size_t blockBytes = hashBlockBytes(kind);
    KJ_REQUIRE(key.size() <= blockBytes);
    addPadded(inner, key, 0x36, blockBytes);
    addPadded(outer, key, 0x5c, blockBytes);
  }

  void compute(Pieces pieces, kj::byte* out) const {
    Secret<MAX_HASH_BYTES> innerHash;
    Hasher hasher(inner);
    hasher.add(pieces);
    hasher.finish(innerHash.begin());

    Hasher last(outer);
    last.add(innerHash.asPtr().slice(0, hashBytes(kind)));
    last.finish(out);
  }

 private:
  HashKind kind;
  Hasher inner;
  Hasher outer;

  static void addPadded(Hasher& hasher, kj::ArrayPtr<const kj::byte> key, kj::byte pad, size_t blockBytes) {
    Secret<MAX_BLOCK_BYTES> block;
    memset(block.begin(), pad, blockBytes);
    // By words as far as they go: this runs four times a key derivation.
    uint64_t padWord;
    memset(&padWord, pad, sizeof(padWord));
    size_t done = 0;
    for (; done + sizeof(padWord) <= key.size(); done += sizeof(padWord)) {
      uint64_t word;
      memcpy(&word, key.begin() + done, sizeof(word));
      word ^= padWord;
      memcpy(block.begin() + done, &word, sizeof(word));
    }
    for (; done < key.size(); ++done) block.begin()[done] = kj::byte(key[done] ^ pad);
    hasher.add(block.asPtr().slice(0, blockBytes));
  }
};

}  // namespace

size_t hashBytes(HashKind kind) {
  return kind == HashKind::SHA256 ? 32 : MAX_HASH_BYTES;
}
size_t hashBlockBytes(HashKind kind) {
  return kind == HashKind::SHA256 ? 64 : MAX_BLOCK_BYTES;
}

kj::StringPtr hashName(HashKind kind) {
  switch (kind) {
    case HashKind::BLAKE2B:
      return "BLAKE2b";
    case HashKind::SHA256:
      return "SHA256";
    case HashKind::SHA512:
      return "SHA512";
  }
  KJ_UNREACHABLE;
}

kj::Maybe<HashKind> parseHashName(kj::StringPtr name) {
  for (auto kind : {HashKind::BLAKE2B, HashKind::SHA256, HashKind::SHA512}) {
    if (name == hashName(kind)) return kind;
  }
  return nullptr;
}

void hash(HashKind kind, Pieces pieces, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() == hashBytes(kind));
  Hasher hasher(kind);
  hasher.add(pieces);
  hasher.finish(out.begin());
}

void hmac(HashKind kind, kj::ArrayPtr<const kj::byte> key, Pieces pieces, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() == hashBytes(kind));
  KeyedHmac(kind, key).compute(pieces, out.begin());
}

void hkdf(HashKind kind, kj::ArrayPtr<const kj::byte> chainingKey, kj::ArrayPtr<const kj::byte> inputKeyMaterial,
          kj::ArrayPtr<const kj::ArrayPtr<kj::byte>> outputs) {
  KJ_REQUIRE(outputs.size() == 2 || outputs.size() == 3);
  size_t size = hashBytes(kind);
  Secret<MAX_HASH_BYTES> temporaryKey;
  KeyedHmac(kind, chainingKey).compute({inputKeyMaterial}, temporaryKey.begin());

  // output N = HMAC(temporaryKey, output N-1 | byte N); before the first one there is none.
  KeyedHmac keyed(kind, temporaryKey.asPtr().slice(0, size));
  Secret<MAX_HASH_BYTES> output;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto number = kj::byte(i + 1);
    auto previous = output.asPtr().slice(0, i == 0 ? 0 : size);
    keyed.compute({previous, kj::arrayPtr(&number, 1)}, output.begin());
    auto wanted = outputs[i];
    KJ_REQUIRE(wanted.size() <= size);
    memcpy(wanted.begin(), output.begin(), wanted.size());
  }
}

}  // namespace postern::noise
