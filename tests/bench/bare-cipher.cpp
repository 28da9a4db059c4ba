#include "tests/bench/bare-cipher.h"

#include <kj/debug.h>
#include <sys/resource.h>
#include <unistd.h>

namespace postern::bench {

const kj::byte* BareCipher::nextNonce() {
  ++nonce[0];
  return reinterpret_cast<const kj::byte*>(nonce);
}

void BareCipher::seal() {
  crypto_aead_chacha20poly1305_ietf_encrypt(buffer.begin(), nullptr, buffer.begin(), BARE_BLOCK_BYTES, nullptr, 0,
                                            nullptr, nextNonce(), key);
}

void BareCipher::open() {
  int result = crypto_aead_chacha20poly1305_ietf_decrypt(buffer.begin(), nullptr, nullptr, buffer.begin(),
                                                         BARE_SEALED_BYTES, nullptr, 0, nextNonce(), key);
  KJ_REQUIRE(result == 0, "the bare loop does not authenticate");
}

void writeAll(int fd, kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t n;
    KJ_SYSCALL(n = write(fd, bytes.begin(), bytes.size()));
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
}

void readAll(int fd, kj::ArrayPtr<kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t n;
    KJ_SYSCALL(n = read(fd, bytes.begin(), bytes.size()));
    KJ_REQUIRE(n > 0, "the other process ended early");
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
}

double cpuOfChildren() {
  rusage usage;
  KJ_SYSCALL(getrusage(RUSAGE_CHILDREN, &usage));
  auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace postern::bench
