// handshake: the CPU of a whole set-up, both ends, against the CPU of as many X25519 multiplications as it makes, done
// by turns with it.

#include <kj/debug.h>
#include <sodium.h>

#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/peer-process.h"
#include "tests/bench/runtime.h"
#include "tests/bench/scalar-mult-count.h"

namespace postern::bench {

namespace {

// KKpsk0, each side: one base multiplication for its ephemeral key, and es, ss, ee, se. setUp() checks it.
constexpr uint64_t BASE_PER_SETUP = 2;
constexpr uint64_t SHARED_PER_SETUP = 8;
constexpr double MICROSECONDS = 1e6;

// CPU seconds of one set-up's multiplications alone, with caches and branch predictor to themselves: the strictest
// reference.
double multiplications() {
  kj::byte scalar[crypto_scalarmult_SCALARBYTES] = {3};
  kj::byte point[crypto_scalarmult_BYTES];
  kj::byte out[crypto_scalarmult_BYTES];
  crypto_scalarmult_base(point, scalar);
  double began = cpuSeconds();
  for (uint64_t i = 0; i < BASE_PER_SETUP; ++i) crypto_scalarmult_base(out, scalar);
  for (uint64_t i = 0; i < SHARED_PER_SETUP; ++i) {
    scalar[1] = static_cast<kj::byte>(i);
    KJ_REQUIRE(crypto_scalarmult(out, scalar, point) == 0);
  }
  return cpuSeconds() - began;
}

// CPU seconds of one set-up, from before HELLO to ACCEPT received; the sockets are made before, and the sessions end
// after it.
double setUp(Runtime& runtime, EnrolledPair& pair) {
  auto sockets = newSocketPair();
  auto countBefore = scalarMultCount();
  double began = cpuSeconds();
  auto hostPromise = runtime.connectHost(kj::mv(sockets.far), pair).eagerlyEvaluate(nullptr);
  auto guest = runtime.connectGuest(kj::mv(sockets.near), pair).wait(runtime.io.waitScope);
  auto host = hostPromise.wait(runtime.io.waitScope);
  double took = cpuSeconds() - began;

  auto count = scalarMultCount();
  uint64_t base = count.base - countBefore.base;
  uint64_t shared = count.shared - countBefore.shared;
  KJ_REQUIRE(base == BASE_PER_SETUP && shared == SHARED_PER_SETUP, "not the multiplications of KKpsk0", base, shared);
  return took;
}

}  // namespace

void measureHandshake(const Options& options, Report& report) {
  size_t setUps = options.quick ? 5 : 500;
  Runtime runtime;
  EnrolledPair pair;
  setUp(runtime, pair);  // warm
  double reference = 0, ours = 0;
  for (size_t i = 0; i < setUps; ++i) {
    reference += multiplications();
    ours += setUp(runtime, pair);
  }
  double each = MICROSECONDS / static_cast<double>(setUps);
  report.add("handshake, CPU of both ends", "us", Target::atMost(1.35), {reference * each, ours * each});
}

}  // namespace postern::bench
