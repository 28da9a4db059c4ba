// rpc-pipelined: calls a second with many under way, against plain Cap'n Proto.

#include "tests/bench/bench-server.h"
#include "tests/bench/calls.h"
#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

double plainCalls(size_t count, size_t window) {
  PeerProcess peer(1, [](kj::ArrayPtr<kj::AutoCloseFd> sockets) { servePlain(kj::mv(sockets[0])); });
  double result;
  {
    Runtime runtime(POLLING_OF_KJ);
    PlainClient client(runtime, peer.takeSocket());
    pingPipelined(client.echo, window, window, runtime.io.waitScope);
    result = pingPipelined(client.echo, count, window, runtime.io.waitScope);
  }
  peer.finish();
  return result;
}

double sessionCalls(size_t count, size_t window) {
  EnrolledPair pair;
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { serveSession(kj::mv(sockets[0]), pair); });
  double result;
  {
    Runtime runtime;
    SessionClient client(runtime, peer.takeSocket(), pair);
    pingPipelined(client.echo, window, window, runtime.io.waitScope);
    result = pingPipelined(client.echo, count, window, runtime.io.waitScope);
  }
  peer.finish();
  return result;
}

}  // namespace

void measurePipelinedRpc(const Options& options, Report& report) {
  size_t count = options.quick ? 5'000 : 100'000;
  for (size_t window : {64, 256}) {
    report.add(kj::str("rpc-pipelined, ", window, " calls"), "calls/s", Target::atLeast(1.0),
               {plainCalls(count, window), sessionCalls(count, window)});
  }
}

}  // namespace postern::bench
