#pragma once
// The bare loop's parts, which bulk channels and file copies are measured against: what a program that does nothing
// else spends on sealing, opening, writing and reading. Not the protocol: no handshake, no record headers, a fixed key.

#include <kj/array.h>
#include <kj/debug.h>
#include <sodium.h>
#include <unistd.h>

namespace postern::bench {

constexpr size_t BLOCK_BYTES = size_t(64) << 10;

// Of a blocking descriptor; throws when the other end has gone.
inline void writeAll(int fd, kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t n;
    KJ_SYSCALL(n = write(fd, bytes.begin(), bytes.size()));
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
}

inline void readAll(int fd, kj::ArrayPtr<kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t n;
    KJ_SYSCALL(n = read(fd, bytes.begin(), bytes.size()));
    KJ_REQUIRE(n > 0, "it ended early");
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
}

// One direction, at one end: seals or opens its buffer in place, one block after the other.
class BareCipher {
 public:
  explicit BareCipher(size_t blockBytes = BLOCK_BYTES)
      : buffer(kj::heapArray<kj::byte>(blockBytes + crypto_aead_chacha20poly1305_ietf_ABYTES)) {}

  kj::ArrayPtr<kj::byte> plain() { return buffer.slice(0, buffer.size() - crypto_aead_chacha20poly1305_ietf_ABYTES); }
  kj::ArrayPtr<kj::byte> sealed() { return buffer; }

  void seal() {
    crypto_aead_chacha20poly1305_ietf_encrypt(buffer.begin(), nullptr, buffer.begin(), plain().size(), nullptr, 0,
                                              nullptr, nextNonce(), key);
  }
  void open() {
    int result = crypto_aead_chacha20poly1305_ietf_decrypt(buffer.begin(), nullptr, nullptr, buffer.begin(),
                                                           buffer.size(), nullptr, 0, nextNonce(), key);
    KJ_REQUIRE(result == 0, "the bare loop does not authenticate");
  }

 private:
  const kj::byte* nextNonce() {
    ++nonce[0];
    return reinterpret_cast<const kj::byte*>(nonce);
  }

  kj::byte key[crypto_aead_chacha20poly1305_IETF_KEYBYTES] = {1};
  uint64_t nonce[2] = {0, 0};  // the cipher takes the first 12 bytes
  kj::Array<kj::byte> buffer;
};

}  // namespace postern::bench
