// ping: one call at a time, against plain Cap'n Proto; and the session's own PING.

#include "tests/bench/bench-server.h"
#include "tests/bench/calls.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/quantile.h"

namespace postern::bench {

namespace {

constexpr double MICROSECONDS = 1e6;

struct Latency {
  double p50, p99;
};

Latency latencyOf(kj::Vector<double> samples) {
  return {quantile(samples, 0.5) * MICROSECONDS, quantile(samples, 0.99) * MICROSECONDS};
}

Latency plainPing(size_t count) {
  PeerProcess peer(1, [](kj::ArrayPtr<kj::AutoCloseFd> sockets) { servePlain(kj::mv(sockets[0])); });
  Latency result;
  {
    Runtime runtime(POLLING_OF_KJ);
    PlainClient client(runtime, peer.takeSocket());
    pingOneByOne(client.echo, 100, runtime.io.waitScope);
    result = latencyOf(pingOneByOne(client.echo, count, runtime.io.waitScope));
  }
  peer.finish();
  return result;
}

struct SessionLatency {
  Latency call, ping;
};

SessionLatency sessionPing(size_t count) {
  EnrolledPair pair;
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { serveSession(kj::mv(sockets[0]), pair); });
  SessionLatency result;
  {
    Runtime runtime;
    SessionClient client(runtime, peer.takeSocket(), pair);
    pingOneByOne(client.echo, 100, runtime.io.waitScope);
    result.call = latencyOf(pingOneByOne(client.echo, count, runtime.io.waitScope));
    kj::Vector<double> samples(count);
    for (size_t i = 0; i < count; ++i) {
      double began = wallSeconds();
      client.session->ping().wait(runtime.io.waitScope);
      samples.add(wallSeconds() - began);
    }
    result.ping = latencyOf(kj::mv(samples));
  }
  peer.finish();
  return result;
}

}  // namespace

void measurePing(const Options& options, Report& report) {
  size_t count = options.quick ? 200 : 10'000;
  auto reference = plainPing(count);
  auto ours = sessionPing(count);
  report.add("ping, p50", "us", Target::atMost(1.5), {reference.p50, ours.call.p50});
  report.add("ping, p99", "us", Target::none(), {reference.p99, ours.call.p99});
  report.add("ping, PING record p50", "us", Target::none(), {reference.p50, ours.ping.p50});
  report.add("ping, PING record p99", "us", Target::none(), {reference.p99, ours.ping.p99});
}

}  // namespace postern::bench
