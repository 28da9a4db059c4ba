// bulk: a stream over a session, against a bare loop that seals 64 KiB and writes it, read and opened by another
// process.

#include <kj/debug.h>
#include <sodium.h>
#include <unistd.h>

#include "tests/bench/bench-server.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "transport/fd-pipe.h"

namespace postern::bench {

namespace {

constexpr size_t BLOCK_BYTES = size_t(64) << 10;
constexpr size_t SEALED_BYTES = BLOCK_BYTES + crypto_aead_chacha20poly1305_ietf_ABYTES;
constexpr double MIB = 1 << 20;

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

struct BareCipher {
  kj::byte key[crypto_aead_chacha20poly1305_IETF_KEYBYTES] = {1};
  uint64_t nonce[2] = {0, 0};  // the cipher takes the first 12 bytes
  kj::Array<kj::byte> buffer = kj::heapArray<kj::byte>(SEALED_BYTES);

  const kj::byte* nextNonce() {
    ++nonce[0];
    return reinterpret_cast<const kj::byte*>(nonce);
  }
  void seal() {
    crypto_aead_chacha20poly1305_ietf_encrypt(buffer.begin(), nullptr, buffer.begin(), BLOCK_BYTES, nullptr, 0, nullptr,
                                              nextNonce(), key);
  }
  void open() {
    int result = crypto_aead_chacha20poly1305_ietf_decrypt(buffer.begin(), nullptr, nullptr, buffer.begin(),
                                                           SEALED_BYTES, nullptr, 0, nextNonce(), key);
    KJ_REQUIRE(result == 0, "the bare loop does not authenticate");
  }
};

void openBare(int socket, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(socket, cipher.buffer);
    cipher.open();
  }
  const kj::byte done = 1;
  writeAll(socket, kj::arrayPtr(&done, 1));
}

// MiB/s, until the other process has opened the last block.
double bareLoop(uint64_t bytes) {
  uint64_t blocks = bytes / BLOCK_BYTES;
  PeerProcess peer(1, [blocks](kj::ArrayPtr<kj::AutoCloseFd> sockets) { openBare(sockets[0], blocks); });
  auto socket = peer.takeSocket();
  BareCipher cipher;
  double began = wallSeconds();
  for (uint64_t i = 0; i < blocks; ++i) {
    cipher.seal();
    writeAll(socket, cipher.buffer);
  }
  kj::byte done;
  readAll(socket, kj::arrayPtr(&done, 1));
  double took = wallSeconds() - began;
  peer.finish();
  return static_cast<double>(bytes) / MIB / took;
}

// MiB/s, until the far end has read the last byte from its channel and said so by RPC.
double bulkStream(uint64_t bytes, kj::Maybe<size_t> sendBuffer) {
  EnrolledPair pair;
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { serveSession(kj::mv(sockets[0]), pair); });
  auto socket = peer.takeSocket();
  KJ_IF_MAYBE (size, sendBuffer) limitSendBuffer(socket, *size);
  double took;
  {
    Runtime runtime;
    SessionClient client(runtime, kj::mv(socket), pair);
    client.echo.pingRequest().send().wait(runtime.io.waitScope);
    double began = wallSeconds();
    auto stream = openBulk(*client.session, client.bench);
    auto sending = sendBulk(*stream.channel, bytes).eagerlyEvaluate(nullptr);
    uint64_t received = stream.drained.wait(runtime.io.waitScope);
    took = wallSeconds() - began;
    KJ_REQUIRE(received == bytes);
  }
  peer.finish();
  return static_cast<double>(bytes) / MIB / took;
}

}  // namespace

void measureBulk(const Options& options, Report& report) {
  uint64_t bytes = uint64_t(options.quick ? 64 : 1024) << 20;
  double reference = bareLoop(bytes);
  report.add("bulk", "MiB/s", Target::atLeast(0.85), {reference, bulkStream(bytes, nullptr)});
  for (size_t kib : {32, 64, 128}) {
    report.add(kj::str("bulk, send buffer ", kib, " KiB"), "MiB/s", Target::none(),
               {reference, bulkStream(bytes, kib << 10)});
  }
}

}  // namespace postern::bench
