// product-ping: `postern ping` as a person's program makes it, with the programs as they are installed: a caller, the
// VM's postern-session and the guest's postern-agent, against plain Cap'n Proto between two and between three
// processes.

#include <kj/debug.h>

#include "tests/bench/bench-server.h"
#include "tests/bench/calls.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/quantile.h"
#include "tests/bench/real-agent.h"
#include "tests/bench/real-host.h"

namespace postern::bench {

namespace {

constexpr double MICROSECONDS = 1e6;

struct Latency {
  double p50, p99;
};

Latency latencyOf(kj::Vector<double> samples) {
  return {quantile(samples, 0.5) * MICROSECONDS, quantile(samples, 0.99) * MICROSECONDS};
}

// The process in the middle: makes each call that comes to it, as postern-session does.
class Relay final : public test::Echo::Server {
 public:
  explicit Relay(test::Echo::Client far) : far(kj::mv(far)) {}

 protected:
  kj::Promise<void> ping(PingContext context) override {
    auto request = far.pingRequest();
    request.setNumber(context.getParams().getNumber());
    return request.send().then([context](capnp::Response<test::Echo::PingResults> answer) mutable {
      context.getResults().setNumber(answer.getNumber());
    });
  }

 private:
  test::Echo::Client far;
};

void relay(kj::AutoCloseFd caller, kj::AutoCloseFd server) {
  Runtime runtime(POLLING_OF_KJ);
  PlainClient far(runtime, kj::mv(server));
  auto stream = runtime.io.lowLevelProvider->wrapSocketFd(kj::mv(caller));
  capnp::TwoPartyVatNetwork network(*stream, capnp::rpc::twoparty::Side::SERVER);
  auto system = capnp::makeRpcServer(network, kj::heap<Relay>(far.echo));
  network.onDisconnect().wait(runtime.io.waitScope);
}

Latency plainCalls(kj::AutoCloseFd socket, size_t count) {
  Runtime runtime(POLLING_OF_KJ);
  PlainClient client(runtime, kj::mv(socket));
  pingOneByOne(client.echo, 100, runtime.io.waitScope);
  return latencyOf(pingOneByOne(client.echo, count, runtime.io.waitScope));
}

Latency plainPair(size_t count) {
  PeerProcess server(1, [](kj::ArrayPtr<kj::AutoCloseFd> sockets) { servePlain(kj::mv(sockets[0])); });
  auto result = plainCalls(server.takeSocket(), count);
  server.finish();
  return result;
}

Latency plainChain(size_t count) {
  PeerProcess server(1, [](kj::ArrayPtr<kj::AutoCloseFd> sockets) { servePlain(kj::mv(sockets[0])); });
  PeerProcess middle(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { relay(kj::mv(sockets[0]), server.takeSocket()); });
  auto result = plainCalls(middle.takeSocket(), count);
  middle.finish();
  server.finish();
  return result;
}

struct ProductLatency {
  Latency link, total;
};

ProductLatency productCalls(size_t count) {
  Runtime runtime;
  RealHost host(runtime.io);
  host.start();
  auto control = host.connect();
  RealAgent agent(host, "web1", "ping");
  auto vm = host.openVm(*control, "web1", "ping");
  agent.untilConnected(*vm, runtime.io);
  auto calls = vm->calls();
  kj::Vector<double> link(count), total(count);
  for (size_t i = 0; i < count + 100; ++i) {
    double began = wallSeconds();
    auto answer = calls.pingRequest().send().wait(runtime.io.waitScope);
    double took = wallSeconds() - began;
    KJ_REQUIRE(!answer.hasFailure(), answer.getFailure().getText());
    if (i < 100) continue;
    total.add(took);
    link.add(static_cast<double>(answer.getLinkNanoseconds()) * 1e-9);
  }
  return {latencyOf(kj::mv(link)), latencyOf(kj::mv(total))};
}

}  // namespace

void measureProductPing(const Options& options, Report& report) {
  size_t count = options.quick ? 200 : 10'000;
  auto pair = plainPair(count);
  auto chain = plainChain(count);
  auto ours = productCalls(count);
  report.add("product-ping, link p50", "us", Target::atMost(1.5), {pair.p50, ours.link.p50});
  report.add("product-ping, total p50", "us", Target::atMost(1.3), {chain.p50, ours.total.p50});
  report.add("product-ping, link p99", "us", Target::none(), {pair.p99, ours.link.p99});
  report.add("product-ping, total p99", "us", Target::none(), {chain.p99, ours.total.p99});
}

}  // namespace postern::bench
