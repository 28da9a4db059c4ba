// handshake: the CPU of a whole set-up, both ends, against the CPU of the X25519 multiplications in it.

#include <kj/debug.h>
#include <kj/vector.h>
#include <sodium.h>

#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/peer-process.h"
#include "tests/bench/runtime.h"
#include "tests/bench/scalar-mult-count.h"

namespace postern::bench {

namespace {

constexpr size_t BATCH = 1;
// KKpsk0, each side: one base multiplication for its ephemeral key, and es, ss, ee, se.
constexpr uint64_t BASE_PER_SETUP = 2;
constexpr uint64_t SHARED_PER_SETUP = 8;
constexpr double MICROSECONDS = 1e6;

// CPU seconds of the multiplications of BATCH set-ups.
double multiplications() {
  kj::byte scalar[crypto_scalarmult_SCALARBYTES] = {3};
  kj::byte point[crypto_scalarmult_BYTES];
  kj::byte out[crypto_scalarmult_BYTES];
  crypto_scalarmult_base(point, scalar);
  double began = cpuSeconds();
  for (size_t i = 0; i < BATCH * BASE_PER_SETUP; ++i) crypto_scalarmult_base(out, scalar);
  for (size_t i = 0; i < BATCH * SHARED_PER_SETUP; ++i) {
    scalar[1] = static_cast<kj::byte>(i);
    KJ_REQUIRE(crypto_scalarmult(out, scalar, point) == 0);
  }
  return cpuSeconds() - began;
}

// CPU seconds of BATCH set-ups, from before HELLO to ACCEPT received; sockets are made before and sessions end after.
double setUps(Runtime& runtime, EnrolledPair& pair) {
  auto sockets = kj::heapArrayBuilder<SocketPair>(BATCH);
  for (size_t i = 0; i < BATCH; ++i) sockets.add(newSocketPair());
  kj::Vector<kj::Own<Session>> sessions(2 * BATCH);

  auto countBefore = scalarMultCount();
  double began = cpuSeconds();
  for (auto& socket : sockets) {
    auto host = runtime.connectHost(kj::mv(socket.far), pair).eagerlyEvaluate(nullptr);
    sessions.add(runtime.connectGuest(kj::mv(socket.near), pair).wait(runtime.io.waitScope));
    sessions.add(host.wait(runtime.io.waitScope));
  }
  double took = cpuSeconds() - began;

  auto count = scalarMultCount();
  KJ_REQUIRE(count.base - countBefore.base == BATCH * BASE_PER_SETUP, "base multiplications are not as counted here");
  KJ_REQUIRE(count.shared - countBefore.shared == BATCH * SHARED_PER_SETUP, "multiplications are not as counted here");
  return took;
}

}  // namespace

void measureHandshake(const Options& options, Report& report) {
  size_t batches = options.quick ? 5 : 400;
  Runtime runtime;
  EnrolledPair pair;
  setUps(runtime, pair);  // warm
  double reference = 0, ours = 0;
  for (size_t i = 0; i < batches; ++i) {
    reference += multiplications();
    ours += setUps(runtime, pair);
  }
  double each = MICROSECONDS / static_cast<double>(batches * BATCH);
  report.add("handshake, CPU of both ends", "us", Target::atMost(1.35), {reference * each, ours * each});
}

}  // namespace postern::bench
