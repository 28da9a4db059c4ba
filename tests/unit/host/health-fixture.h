#pragma once
// A Health with a clock turned by hand, and its verdict as one word: "green on-time".

#include <doctest/doctest.h>
#include <kj/string.h>

#include "host/health/health.h"

namespace postern::host::test {

constexpr auto MS = kj::MILLISECONDS;
constexpr auto S = kj::SECONDS;

struct HealthFixture {
  const kj::TimePoint start = kj::origin<kj::TimePoint>() + 1000 * S;
  kj::TimePoint now = start;
  Health health{now};
  uint64_t sequence = 0;

  HealthFixture& after(kj::Duration time) {
    now += time;
    return *this;
  }
  void beat(GuestState state = GuestState::RUNNING, kj::Duration lag = 0 * S, kj::Duration interval = 1 * S) {
    health.heartbeat(now, {++sequence, interval, lag, state});
  }
  void beats(unsigned count, kj::Duration every = 1 * S) {
    for (unsigned i = 0; i < count; ++i) after(every).beat();
  }
  // Enrolled, connected, green: and a heartbeat this very moment.
  void makeGreen() {
    health.configured(now);
    health.linkUp(now);
    beat();
    beats(1);
    REQUIRE((says() == "green on-time"));
  }
  kj::String says() {
    auto& verdict = health.evaluate(now);
    return kj::str(colourName(verdict.colour), " ", reasonName(verdict.reason));
  }
  kj::String saysAfter(kj::Duration time) { return after(time).says(); }
  kj::Duration since() { return now - health.evaluate(now).since; }
};

}  // namespace postern::host::test
