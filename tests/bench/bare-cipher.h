#pragma once
// What a bare loop does that seals blocks and writes them to another process, which reads and opens them: the least
// that an encrypted stream can cost.

#include <kj/array.h>
#include <sodium.h>

namespace postern::bench {

constexpr size_t BARE_BLOCK_BYTES = size_t(64) << 10;
constexpr size_t BARE_SEALED_BYTES = BARE_BLOCK_BYTES + crypto_aead_chacha20poly1305_ietf_ABYTES;

struct BareCipher {
  kj::byte key[crypto_aead_chacha20poly1305_IETF_KEYBYTES] = {1};
  uint64_t nonce[2] = {0, 0};  // the cipher takes the first 12 bytes
  kj::Array<kj::byte> buffer = kj::heapArray<kj::byte>(BARE_SEALED_BYTES);

  kj::ArrayPtr<kj::byte> block() { return buffer.slice(0, BARE_BLOCK_BYTES); }
  // The block in the buffer, in place.
  void seal();
  void open();

 private:
  const kj::byte* nextNonce();
};

// All of it; throw if the other process ends early.
void writeAll(int fd, kj::ArrayPtr<const kj::byte> bytes);
void readAll(int fd, kj::ArrayPtr<kj::byte> bytes);

// User and system time of this process's children that have ended, in seconds.
double cpuOfChildren();

}  // namespace postern::bench
