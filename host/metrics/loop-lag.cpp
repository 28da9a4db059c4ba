#include "host/metrics/loop-lag.h"

namespace postern::host {

namespace {

// Not the loop's own clock, which stands while the loop does.
kj::TimePoint preciseNow() {
  return kj::systemPreciseMonotonicClock().now();
}

}  // namespace

LoopLag::LoopLag(kj::Timer& timer, Histogram& seconds)
    : timer(timer), seconds(seconds), looking(look().eagerlyEvaluate(nullptr)) {}

kj::Promise<void> LoopLag::look() {
  auto due = preciseNow() + LOOP_LAG_EVERY;
  return timer.atTime(due).then([this, due]() {
    auto late = kj::max(preciseNow() - due, 0 * kj::SECONDS);
    seconds.observe(double(late / kj::NANOSECONDS) / 1e9);
    return look();
  });
}

}  // namespace postern::host
