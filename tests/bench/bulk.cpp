// bulk: a stream over a session, against a bare loop that seals 64 KiB and writes it, read and opened by another
// process.

#include <kj/debug.h>

#include "tests/bench/bare-cipher.h"
#include "tests/bench/bench-server.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

constexpr double MIB = 1 << 20;

void openBare(int socket, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(socket, cipher.sealed());
    cipher.open();
  }
  const kj::byte done = 1;
  writeAll(socket, kj::arrayPtr(&done, 1));
}

struct Speed {
  double mibPerSecond;
  double cpuSeconds;  // of both processes
};

// Until the other process has opened the last block.
Speed bareLoop(uint64_t bytes) {
  uint64_t blocks = bytes / BLOCK_BYTES;
  double cpuBefore = cpuSeconds() + cpuOfChildren();
  PeerProcess peer(1, [blocks](kj::ArrayPtr<kj::AutoCloseFd> sockets) { openBare(sockets[0], blocks); });
  auto socket = peer.takeSocket();
  BareCipher cipher;
  double began = wallSeconds();
  for (uint64_t i = 0; i < blocks; ++i) {
    cipher.seal();
    writeAll(socket, cipher.sealed());
  }
  kj::byte done;
  readAll(socket, kj::arrayPtr(&done, 1));
  double took = wallSeconds() - began;
  peer.finish();
  return {static_cast<double>(bytes) / MIB / took, cpuSeconds() + cpuOfChildren() - cpuBefore};
}

// Until the far end has read the last byte from its channel and said so by RPC.
Speed bulkStream(uint64_t bytes, kj::Maybe<size_t> sendBuffer) {
  EnrolledPair pair;
  double cpuBefore = cpuSeconds() + cpuOfChildren();
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { serveSession(kj::mv(sockets[0]), pair); });
  double took;
  {
    Runtime runtime;
    runtime.sendBuffer = sendBuffer;
    SessionClient client(runtime, peer.takeSocket(), pair);
    client.echo.pingRequest().send().wait(runtime.io.waitScope);
    double began = wallSeconds();
    auto stream = openBulk(*client.session, client.bench);
    auto sending = sendBulk(*stream.channel, bytes).eagerlyEvaluate(nullptr);
    uint64_t received = stream.drained.wait(runtime.io.waitScope);
    took = wallSeconds() - began;
    KJ_REQUIRE(received == bytes);
  }
  peer.finish();
  return {static_cast<double>(bytes) / MIB / took, cpuSeconds() + cpuOfChildren() - cpuBefore};
}

}  // namespace

void measureBulk(const Options& options, Report& report) {
  uint64_t bytes = uint64_t(options.quick ? 64 : 1024) << 20;
  auto reference = bareLoop(bytes);
  auto ours = bulkStream(bytes, limits::UNIX_SEND_BUFFER_BYTES);
  report.add("bulk", "MiB/s", Target::atLeast(0.85), {reference.mibPerSecond, ours.mibPerSecond});
  report.add("bulk, CPU of both ends", "ms", Target::none(), {reference.cpuSeconds * 1e3, ours.cpuSeconds * 1e3});
  report.add("bulk, send buffer 32 KiB", "MiB/s", Target::none(),
             {reference.mibPerSecond, bulkStream(bytes, size_t(32) << 10).mibPerSecond});
  report.add("bulk, send buffer default", "MiB/s", Target::none(),
             {reference.mibPerSecond, bulkStream(bytes, nullptr).mibPerSecond});
}

}  // namespace postern::bench
