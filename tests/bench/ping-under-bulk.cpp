// ping-under-bulk: the latency of a call while a full-speed stream goes the same way in the same session, against plain
// Cap'n Proto's while a full-speed stream goes the same way through another socket of the same two processes. We may
// take twice that, and the time of four records of our own stream.

#include <kj/debug.h>
#include <string.h>

#include "tests/bench/bench-server.h"
#include "tests/bench/calls.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/quantile.h"
#include "tests/support/echo.h"

namespace postern::bench {

namespace {

constexpr double MICROSECONDS = 1e6;
constexpr size_t CHUNK_BYTES = size_t(64) << 10;
constexpr double MIB = 1 << 20;
constexpr double RECORDS_ALLOWED = 4;

struct Result {
  double p50, p99;
  double bytesPerSecond;
};

// The far process of the reference: plain Cap'n Proto on one socket, and whatever comes on the other is read.
void servePlainAndDrain(kj::ArrayPtr<kj::AutoCloseFd> sockets) {
  Runtime runtime(POLLING_BESIDE_STREAM);
  auto rpcStream = runtime.io.lowLevelProvider->wrapSocketFd(kj::mv(sockets[0]));
  auto byteStream = runtime.io.lowLevelProvider->wrapSocketFd(kj::mv(sockets[1]));
  capnp::TwoPartyVatNetwork network(*rpcStream, capnp::rpc::twoparty::Side::SERVER);
  auto system = capnp::makeRpcServer(network, kj::heap<test::EchoServer>());
  auto buffer = kj::heapArray<kj::byte>(CHUNK_BYTES);
  struct Drain {
    kj::AsyncIoStream& stream;
    kj::ArrayPtr<kj::byte> buffer;
    kj::Promise<void> run() {
      return stream.tryRead(buffer.begin(), 1, buffer.size()).then([this](size_t n) -> kj::Promise<void> {
        if (n == 0) return kj::READY_NOW;
        return run();
      });
    }
  } drain{*byteStream, buffer};
  auto draining = drain.run().eagerlyEvaluate([](kj::Exception&& e) { KJ_LOG(ERROR, e); });
  network.onDisconnect().wait(runtime.io.waitScope);
}

// Writes chunks while `*running`.
struct PlainSource {
  kj::AsyncIoStream& stream;
  kj::ArrayPtr<const kj::byte> chunk;
  const bool& running;
  uint64_t sent = 0;

  kj::Promise<void> run() {
    if (!running) return kj::READY_NOW;
    sent += chunk.size();
    return stream.write(chunk.begin(), chunk.size()).then([this]() { return run(); });
  }
};

// The same through a bulk channel.
struct BulkSource {
  BulkChannel& channel;
  const bool& running;
  uint64_t sent = 0;

  kj::Promise<void> run() {
    while (running) {
      size_t size = channel.sendable();
      if (size == 0) {
        return channel.whenSendable().then([this](bool canSend) {
          KJ_REQUIRE(canSend, "the channel ended early");
          return run();
        });
      }
      channel.send(channel.newBlock(), size);
      sent += size;
    }
    channel.finish();
    return kj::READY_NOW;
  }
};

Result resultOf(kj::Vector<double> samples, double bytesPerSecond) {
  return {quantile(samples, 0.5) * MICROSECONDS, quantile(samples, 0.99) * MICROSECONDS, bytesPerSecond};
}

Result plain(kj::Duration time) {
  PeerProcess peer(2, servePlainAndDrain);
  kj::Vector<double> samples;
  double bytesPerSecond;
  {
    Runtime runtime(POLLING_BESIDE_STREAM);
    PlainClient client(runtime, peer.takeSocket(0));
    auto stream = runtime.io.lowLevelProvider->wrapSocketFd(peer.takeSocket(1));
    pingOneByOne(client.echo, 10, runtime.io.waitScope);
    auto chunk = kj::heapArray<kj::byte>(CHUNK_BYTES);
    memset(chunk.begin(), 0, chunk.size());
    bool running = true;
    double began = wallSeconds();
    PlainSource source{*stream, chunk, running};
    auto sending = source.run();
    auto pinging = pingWhile(client.echo, running, samples);
    runtime.timer.afterDelay(time).wait(runtime.io.waitScope);
    running = false;
    sending.wait(runtime.io.waitScope);
    bytesPerSecond = static_cast<double>(source.sent) / (wallSeconds() - began);
    pinging.wait(runtime.io.waitScope);
  }
  peer.finish();
  return resultOf(kj::mv(samples), bytesPerSecond);
}

Result session(kj::Duration time, kj::Maybe<size_t> sendBuffer) {
  EnrolledPair pair;
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { serveSession(kj::mv(sockets[0]), pair); });
  kj::Vector<double> samples;
  double bytesPerSecond;
  {
    Runtime runtime;
    runtime.sendBuffer = sendBuffer;
    SessionClient client(runtime, peer.takeSocket(), pair);
    pingOneByOne(client.echo, 10, runtime.io.waitScope);
    bool running = true;
    double began = wallSeconds();
    auto stream = openBulk(*client.session, client.bench);
    BulkSource source{*stream.channel, running};
    auto sending = source.run();
    auto pinging = pingWhile(client.echo, running, samples);
    runtime.timer.afterDelay(time).wait(runtime.io.waitScope);
    running = false;
    sending.wait(runtime.io.waitScope);
    uint64_t received = stream.drained.wait(runtime.io.waitScope);
    bytesPerSecond = static_cast<double>(received) / (wallSeconds() - began);
    KJ_REQUIRE(received == source.sent);
    pinging.wait(runtime.io.waitScope);
  }
  peer.finish();
  return resultOf(kj::mv(samples), bytesPerSecond);
}

void addRow(Report& report, kj::StringPtr name, Target target, const Result& reference, const Result& ours) {
  double records = RECORDS_ALLOWED * CHUNK_BYTES / ours.bytesPerSecond * MICROSECONDS;
  report.add(name, "us", target, {records + 2 * reference.p99, ours.p99});
}

}  // namespace

void measurePingUnderBulk(const Options& options, Report& report) {
  auto time = options.quick ? 100 * kj::MILLISECONDS : 1 * kj::SECONDS;
  auto reference = plain(time);
  auto ours = session(time, limits::UNIX_SEND_BUFFER_BYTES);
  addRow(report, "ping-under-bulk, p99", Target::atMost(1.0), reference, ours);
  report.add("ping-under-bulk, p50 of both", "us", Target::none(), {reference.p50, ours.p50});
  report.add("ping-under-bulk, p99 of both", "us", Target::none(), {reference.p99, ours.p99});
  report.add("ping-under-bulk, stream", "MiB/s", Target::none(),
             {reference.bytesPerSecond / MIB, ours.bytesPerSecond / MIB});
  addRow(report, "ping-under-bulk, send buffer 32 KiB", Target::none(), reference, session(time, size_t(32) << 10));
  addRow(report, "ping-under-bulk, send buffer default", Target::none(), reference, session(time, nullptr));
}

}  // namespace postern::bench
