// What holds for every sequence of events: random ones, thousands of them, from fixed seeds.

#include <doctest/doctest.h>

#include <random>

#include "host/health/health.h"
#include "tests/support/sanitized.h"
#include "tests/unit/host/health-fixture.h"

namespace postern::host::test {
namespace {

constexpr unsigned RUNS = postern::test::SANITIZED ? 200 : 2000;

struct Dice {
  explicit Dice(unsigned seed) : engine(seed) {}
  std::mt19937_64 engine;
  uint64_t below(uint64_t bound) { return engine() % bound; }
  kj::Duration upTo(kj::Duration most) {
    return int64_t(below(uint64_t(most / kj::NANOSECONDS) + 1)) * kj::NANOSECONDS;
  }
};

// One of all things that can happen. True if it was a heartbeat.
bool happen(Health& health, kj::TimePoint now, uint64_t& sequence, Dice& dice) {
  switch (dice.below(24)) {
    case 0:
      health.configured(now, dice.upTo(5 * S));
      return false;
    case 1:
    case 2:
    case 3:
      health.linkUp(now);
      return false;
    case 4:
      health.linkLost(now, LinkLoss(dice.below(3)));
      return false;
    case 5:
      health.sessionProcessDied(now);
      return false;
    case 6:
      health.goodbye(now, Goodbye(dice.below(4)));
      return false;
    case 7:
      health.handshakeRefused(now, HandshakeRefusal(dice.below(3)));
      return false;
    case 8:
      health.quarantined(now);
      return false;
    case 9:
      health.paused(now);
      return false;
    case 10:
      health.resumed(now);
      return false;
    case 11:
      health.vmReset(now);
      return false;
    case 12:
      health.vmGone(now);
      return false;
    default: {
      auto state = dice.below(8) == 0 ? GuestState(dice.below(4)) : GuestState::RUNNING;
      auto lag = dice.below(8) == 0 ? dice.upTo(1 * S) : 0 * S;
      health.heartbeat(now, {++sequence, 1 * S, lag, state});
      return true;
    }
  }
}

TEST_CASE("jitter below the slack never leaves green, whatever the interval") {
  for (unsigned seed = 0; seed < RUNS / 20; ++seed) {
    Dice dice(seed);
    HealthFixture f;
    auto interval = MIN_INTERVAL + dice.upTo(5 * S);
    f.health.configured(f.now, interval);
    f.health.linkUp(f.now);
    for (int i = 0; i < 3; ++i) {
      f.beat(GuestState::RUNNING, 0 * S, interval);
      f.after(interval);
    }
    REQUIRE((f.says() == "green on-time"));
    f.health.takeChange();
    // Sent on the interval's grid, each delivered up to the slack later.
    auto grid = f.now;
    for (int i = 0; i < 500; ++i, grid += interval) {
      f.now = grid + dice.upTo(LATE_SLACK - 1 * kj::NANOSECONDS);
      f.health.evaluate(f.now);
      REQUIRE(f.health.takeChange() == nullptr);
      f.beat(GuestState::RUNNING, 0 * S, interval);
      REQUIRE(f.health.takeChange() == nullptr);
    }
  }
}

TEST_CASE("whatever happens: no green without a heartbeat within the limit, and none while it is absent or cut off") {
  unsigned greens = 0;
  for (unsigned seed = 0; seed < RUNS; ++seed) {
    Dice dice(seed);
    HealthFixture f;
    f.health.configured(f.now);
    auto lastHeartbeat = f.start - 1 * kj::DAYS;
    for (int i = 0; i < 200; ++i) {
      f.after(dice.upTo(dice.below(4) == 0 ? 4 * S : 1 * S));
      auto before = f.health.evaluate(f.now).colour;
      if (before == Colour::GREEN) REQUIRE(f.now - lastHeartbeat < 7750 * MS);  // 5 s is the longest interval here
      if (happen(f.health, f.now, f.sequence, dice)) lastHeartbeat = f.now;
      auto& verdict = f.health.evaluate(f.now);
      if (verdict.colour != Colour::GREEN) continue;
      ++greens;
      REQUIRE(f.now - lastHeartbeat < 7750 * MS);
      REQUIRE((before == Colour::GREEN || before == Colour::YELLOW));  // back to green through yellow alone
      if (before == Colour::YELLOW) REQUIRE(lastHeartbeat == f.now);   // and by a heartbeat alone
    }
  }
  CHECK(greens > RUNS);  // the property was tried
}

TEST_CASE(
    "whatever happens: after silence a VM is not green, and nothing but an absence or no enrolment keeps it from red") {
  for (unsigned seed = 0; seed < RUNS; ++seed) {
    Dice dice(seed);
    HealthFixture f;
    f.health.configured(f.now);
    for (int i = 0; i < 50; ++i) {
      happen(f.health, f.after(dice.upTo(1 * S)).now, f.sequence, dice);
    }
    auto colour = f.health.evaluate(f.after(1 * kj::HOURS).now).colour;
    REQUIRE((colour == Colour::RED || colour == Colour::GRAY));
    REQUIRE(f.health.nextChange() == nullptr);
  }
}

TEST_CASE("whatever happens: the verdict and its `since` do not depend on how often somebody looks") {
  for (unsigned seed = 0; seed < RUNS; ++seed) {
    Dice dice(seed);
    Dice same(seed);
    Dice looks(seed + 1);
    HealthFixture watched;
    HealthFixture alone;
    watched.health.configured(watched.now);
    alone.health.configured(alone.now);
    for (int i = 0; i < 100; ++i) {
      auto step = dice.upTo(3 * S);
      same.upTo(3 * S);
      auto target = watched.now + step;
      while (looks.below(3) != 0) {
        watched.now = kj::min(target, watched.now + looks.upTo(1 * S));
        watched.health.evaluate(watched.now);
      }
      watched.now = target;
      alone.after(step);
      happen(watched.health, watched.now, watched.sequence, dice);
      happen(alone.health, alone.now, alone.sequence, same);
    }
    auto& one = watched.health.evaluate(watched.now);
    auto& other = alone.health.evaluate(alone.now);
    REQUIRE(one.sameAs(other));
    REQUIRE(one.since == other.since);
  }
}

TEST_CASE("whatever happens: nothing changes before the moment that nextChange() names, and something does then") {
  unsigned changes = 0;
  for (unsigned seed = 0; seed < RUNS; ++seed) {
    Dice dice(seed);
    HealthFixture f;
    f.health.configured(f.now);
    for (int i = 0; i < 60; ++i) happen(f.health, f.after(dice.upTo(1 * S)).now, f.sequence, dice);
    f.health.evaluate(f.now);
    f.health.takeChange();
    auto next = f.health.nextChange();
    KJ_IF_MAYBE (at, next) {
      f.health.evaluate(*at - 1 * kj::NANOSECONDS);
      REQUIRE(f.health.takeChange() == nullptr);
      f.health.evaluate(*at);
      REQUIRE(f.health.takeChange() != nullptr);
      ++changes;
    } else {
      f.health.evaluate(f.now + 1 * kj::DAYS);
      REQUIRE(f.health.takeChange() == nullptr);
    }
  }
  CHECK(changes > RUNS / 20);
}

}  // namespace
}  // namespace postern::host::test
