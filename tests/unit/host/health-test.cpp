#include "host/health/health.h"

#include <doctest/doctest.h>
#include <kj/debug.h>

#include "tests/unit/host/health-fixture.h"

namespace postern::host::test {
namespace {

constexpr auto LATE = 1750 * MS;  // 1.5 intervals of 1 s, and the slack
constexpr auto RED = 3 * S;

TEST_CASE("a VM is gray until it is enrolled, and gray until its agent connects") {
  HealthFixture f;
  CHECK((f.saysAfter(5 * S) == "gray not-enrolled"));
  CHECK(f.since() == 5 * S);
  f.health.configured(f.now);
  CHECK((f.says() == "gray never-seen"));
  CHECK((f.saysAfter(1 * kj::HOURS) == "gray never-seen"));
  CHECK(f.since() == 1 * kj::HOURS);
  CHECK(f.health.nextChange() == nullptr);
}

TEST_CASE("a VM that connects is yellow, and green after the second heartbeat on time") {
  HealthFixture f;
  f.health.configured(f.now);
  f.health.linkUp(f.now);
  CHECK((f.says() == "yellow connected"));
  f.beat();
  CHECK((f.says() == "yellow connected"));
  f.after(1 * S).beat();
  CHECK((f.says() == "green on-time"));
  CHECK(f.since() == 0 * S);
  f.beats(3600);
  CHECK(f.since() == 1 * kj::HOURS);
}

TEST_CASE("a VM that is enrolled over the session that is up starts then") {
  HealthFixture f;
  f.health.linkUp(f.now);
  f.beat();
  CHECK((f.saysAfter(30 * S) == "gray not-enrolled"));
  f.health.configured(f.now);
  CHECK((f.says() == "yellow connected"));
  f.beat();
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE(
    "silence: late after one and a half intervals and the slack, red after three intervals, at those very moments") {
  HealthFixture f;
  f.makeGreen();
  auto last = f.now;
  CHECK((f.saysAfter(LATE - 1 * kj::NANOSECONDS) == "green on-time"));
  auto next = f.health.nextChange();
  CHECK(KJ_ASSERT_NONNULL(next) == last + LATE);
  CHECK((f.saysAfter(1 * kj::NANOSECONDS) == "yellow late"));
  f.now = last + RED - 1 * kj::NANOSECONDS;
  CHECK((f.says() == "yellow late"));
  CHECK(f.since() == RED - 1 * kj::NANOSECONDS - LATE);
  auto red = f.health.nextChange();
  CHECK(KJ_ASSERT_NONNULL(red) == last + RED);
  CHECK((f.saysAfter(42 * S) == "red silent"));
  CHECK(f.since() == 42 * S - 1 * kj::NANOSECONDS);  // since the limit, although nobody looked then
  CHECK(f.health.nextChange() == nullptr);
}

TEST_CASE("limits follow the interval: three slow intervals, and never less than three seconds") {
  HealthFixture f;
  f.makeGreen();
  f.beat(GuestState::RUNNING, 0 * S, 10 * S);
  CHECK((f.saysAfter(15240 * MS) == "green on-time"));
  CHECK((f.saysAfter(10 * MS) == "yellow late"));
  CHECK((f.saysAfter(14740 * MS) == "yellow late"));
  CHECK((f.saysAfter(10 * MS) == "red silent"));

  HealthFixture quick;
  quick.makeGreen();
  quick.beat(GuestState::RUNNING, 0 * S, 100 * MS);
  CHECK((quick.saysAfter(399 * MS) == "green on-time"));
  CHECK((quick.saysAfter(1 * MS) == "yellow late"));
  CHECK((quick.saysAfter(2599 * MS) == "yellow late"));
  CHECK((quick.saysAfter(1 * MS) == "red silent"));
}

TEST_CASE("a guest cannot promise so little that it is never red, nor so much that the sums overflow") {
  for (auto promised : {365 * kj::DAYS, -1 * S, 0 * S, kj::Duration(kj::maxValue), kj::Duration(kj::minValue)}) {
    HealthFixture f;
    f.makeGreen();
    f.beat(GuestState::RUNNING, 0 * S, promised);
    CHECK((f.saysAfter(3 * MAX_INTERVAL) == "red silent"));
  }
  HealthFixture f;
  f.makeGreen();
  f.health.configured(f.now, 365 * kj::DAYS);
  CHECK((f.saysAfter(3 * MAX_INTERVAL) == "red silent"));
}

TEST_CASE("back from late and from red: yellow with the first heartbeat, green with the second on time") {
  for (auto gap : {2 * S, 10 * S}) {
    HealthFixture f;
    f.makeGreen();
    f.after(gap).beat();
    CHECK((f.says() == "yellow recovering"));
    f.beats(1);
    CHECK((f.says() == "yellow recovering"));  // the first one was late itself
    f.beats(1);
    CHECK((f.says() == "green on-time"));
    CHECK(f.since() == 0 * S);
  }
}

TEST_CASE("every second heartbeat late: yellow all the time, not green in between") {
  HealthFixture f;
  f.makeGreen();
  f.after(2 * S).beat();
  f.health.takeChange();
  for (int i = 0; i < 100; ++i) {
    f.after(1 * S).beat();
    CHECK((f.says() == "yellow recovering"));
    f.after(2 * S).beat();
    CHECK((f.says() == "yellow recovering"));
  }
}

TEST_CASE("heartbeats that were held up and come all at once are one, not proof of a steady agent") {
  HealthFixture f;
  f.makeGreen();
  f.after(10 * S);
  for (int i = 0; i < 10; ++i) {
    f.beat();
    CHECK((f.says() == "yellow recovering"));
    f.after(1 * MS);
  }
  f.beats(1);
  CHECK((f.says() == "yellow recovering"));
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("a heartbeat with a number that does not grow proves nothing") {
  HealthFixture f;
  f.makeGreen();
  for (int i = 0; i < 4; ++i) f.health.heartbeat(f.now += 1 * S, {f.sequence, 1 * S, 0 * S, GuestState::RUNNING});
  CHECK((f.says() == "red silent"));
  f.health.linkLost(f.now);
  f.health.linkUp(f.now);
  f.sequence = 0;  // a new session counts anew
  f.beat();
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("an agent whose own loop lags is starved, and green again after two heartbeats without lag") {
  HealthFixture f;
  f.makeGreen();
  f.after(1 * S).beat(GuestState::RUNNING, STARVED_LAG);
  CHECK((f.says() == "green on-time"));
  f.after(1 * S).beat(GuestState::RUNNING, STARVED_LAG + 1 * MS);
  CHECK((f.says() == "yellow starved"));
  f.beats(1);
  CHECK((f.says() == "yellow recovering"));
  f.after(1 * S).beat(GuestState::RUNNING, 2 * S);
  CHECK((f.says() == "yellow starved"));
  f.beats(2);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("what the agent says of itself: stopping, frozen, resumed are yellow as long as it says so") {
  struct Row {
    GuestState state;
    kj::StringPtr says, then;
  };
  const Row rows[] = {{GuestState::STOPPING, "yellow stopping", "yellow recovering"},
                      {GuestState::FROZEN, "yellow frozen", "yellow recovering"},
                      {GuestState::RESUMED, "yellow resumed", "yellow resumed"}};
  for (auto& row : rows) {
    HealthFixture f;
    f.makeGreen();
    for (int i = 0; i < 5; ++i) {
      f.after(1 * S).beat(row.state);
      CHECK((f.says() == row.says));
    }
    CHECK(f.since() == 4 * S);
    f.beats(1);
    CHECK((f.says() == row.then));
    f.beats(1);
    CHECK((f.says() == "green on-time"));
  }
}

TEST_CASE("a link that is lost and back before the red limit is yellow, then green, and never red") {
  for (auto away : {0 * MS, 500 * MS, 1 * S, 1900 * MS}) {
    HealthFixture f;
    f.makeGreen();
    f.after(1 * S);
    f.health.linkLost(f.now);
    CHECK((f.says() == "yellow link-lost"));
    f.after(away);
    CHECK((f.says() == "yellow link-lost"));
    f.health.linkUp(f.now);
    f.sequence = 0;
    CHECK((f.says() == "yellow connected"));
    f.beat();
    CHECK((f.says() == "yellow connected"));
    f.beats(1);
    CHECK((f.says() == "green on-time"));
  }
}

TEST_CASE("a lost link is red at the limit, with the reason for which it was lost") {
  struct Row {
    void (*happen)(HealthFixture&);
    kj::StringPtr reason;
  };
  const Row rows[] = {
      {[](HealthFixture& f) { f.health.linkLost(f.now); }, "link-lost"},
      {[](HealthFixture& f) { f.health.linkLost(f.now, LinkLoss::PORT_CLOSED); }, "port-closed"},
      {[](HealthFixture& f) { f.health.linkLost(f.now, LinkLoss::PROTOCOL_ERROR); }, "protocol-error"},
      {[](HealthFixture& f) { f.health.sessionProcessDied(f.now); }, "session-died"},
  };
  for (auto& row : rows) {
    HealthFixture f;
    f.makeGreen();
    f.after(500 * MS);
    row.happen(f);
    CHECK((f.says() == kj::str("yellow ", row.reason)));
    f.health.linkLost(f.now);  // the first reason is the cause
    f.health.sessionProcessDied(f.now);
    CHECK((f.saysAfter(2499 * MS) == kj::str("yellow ", row.reason)));
    CHECK((f.saysAfter(1 * MS) == kj::str("red ", row.reason)));
    CHECK((f.saysAfter(1 * kj::DAYS) == kj::str("red ", row.reason)));
    CHECK(f.since() == 1 * kj::DAYS);
  }
}

TEST_CASE("a session that comes back after the red limit is red until a heartbeat comes, without a word in between") {
  HealthFixture f;
  f.makeGreen();
  f.health.linkLost(f.now);
  CHECK((f.saysAfter(10 * S) == "red link-lost"));
  f.health.takeChange();
  f.health.linkUp(f.now);
  CHECK((f.says() == "red link-lost"));
  CHECK(f.health.takeChange() == nullptr);
  f.sequence = 0;
  f.after(1 * MS).beat();
  CHECK((f.says() == "yellow recovering"));
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("an agent that reconnects again and again and gives no heartbeat is red, silent once it had its chance") {
  HealthFixture f;
  f.makeGreen();
  for (int i = 0; i < 20; ++i) {
    f.health.linkLost(f.now);
    f.health.linkUp(f.now);
    f.after(500 * MS);
  }
  CHECK((f.says() == "red link-lost"));
  CHECK((f.saysAfter(2 * S) == "red silent"));
}

TEST_CASE("a session that replaces one that is up leaves the colour alone") {
  HealthFixture f;
  f.makeGreen();
  f.after(1 * S);
  f.health.linkUp(f.now);
  f.sequence = 0;
  f.beat();
  CHECK((f.says() == "green on-time"));
  f.health.linkUp(f.now);
  CHECK((f.saysAfter(LATE) == "yellow late"));
}

TEST_CASE(
    "every goodbye is gray with its own reason, for as long as it takes, and the cut link after it changes nothing") {
  struct Row {
    Goodbye why;
    kj::StringPtr says;
  };
  const Row rows[] = {{Goodbye::SHUTDOWN, "gray shut-down"},
                      {Goodbye::RESTART, "gray restarting"},
                      {Goodbye::SUSPEND, "gray suspended"},
                      {Goodbye::AGENT_STOPPED, "gray agent-stopped"}};
  for (auto& row : rows) {
    HealthFixture f;
    f.makeGreen();
    f.after(1 * S).beat(GuestState::STOPPING);
    f.health.goodbye(f.now, row.why);
    CHECK((f.says() == row.says));
    f.after(10 * MS).beat();  // one that was on its way
    CHECK((f.says() == row.says));
    f.health.linkLost(f.after(10 * MS).now);
    f.health.handshakeRefused(f.now, HandshakeRefusal::KEYS_REJECTED);
    CHECK((f.saysAfter(1 * kj::DAYS) == row.says));
    CHECK(f.health.nextChange() == nullptr);
    f.health.linkUp(f.now);
    CHECK((f.says() == "yellow connected"));
    f.beat();
    f.beats(1);
    CHECK((f.says() == "green on-time"));
  }
}

TEST_CASE("a shutdown that was called off: heartbeats after the goodbye bring the VM back") {
  HealthFixture f;
  f.makeGreen();
  f.health.goodbye(f.now, Goodbye::SUSPEND);
  f.after(STRAGGLER_TIME).beat();
  CHECK((f.says() == "yellow resumed"));
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("a shutdown may take its time after the goodbye, and one that does not happen brings the VM back") {
  for (auto why : {Goodbye::SHUTDOWN, Goodbye::RESTART}) {
    HealthFixture f;
    f.makeGreen();
    f.health.goodbye(f.now, why);
    auto said = f.says();
    for (int i = 0; i < 5; ++i) f.after(STRAGGLER_TIME).beat(GuestState::STOPPING);
    CHECK((f.says() == said));
    CHECK((f.since() == 5 * STRAGGLER_TIME));
    f.health.linkLost(f.now);
    CHECK((f.saysAfter(1 * kj::DAYS) == said));

    f.health.linkUp(f.now);
    f.health.goodbye(f.now, why);
    f.after(STRAGGLER_TIME).beat();
    CHECK((f.says() == "yellow connected"));
  }
}

TEST_CASE("a pause on purpose is gray, and the silence in it does not count") {
  HealthFixture f;
  f.makeGreen();
  f.health.paused(f.now);
  f.after(300 * MS).beat();  // was on its way when QEMU stopped the VM
  CHECK((f.saysAfter(1 * kj::DAYS) == "gray paused"));
  f.health.resumed(f.now);
  CHECK((f.says() == "yellow resumed"));
  f.beats(1);
  CHECK((f.says() == "yellow resumed"));
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("a VM that says nothing after a pause is late and red like any other, counted from the resumption") {
  HealthFixture f;
  f.makeGreen();
  f.health.paused(f.now);
  f.health.resumed(f.after(1 * kj::HOURS).now);
  CHECK((f.saysAfter(LATE) == "yellow late"));
  CHECK((f.saysAfter(RED - LATE) == "red silent"));
}

TEST_CASE("heartbeats end a pause whose end QEMU's socket did not tell; and a resumption without a pause is nothing") {
  HealthFixture f;
  f.makeGreen();
  f.health.paused(f.now);
  f.after(STRAGGLER_TIME).beat();
  CHECK((f.says() == "yellow resumed"));
  f.beats(1);
  CHECK((f.says() == "green on-time"));
  f.health.resumed(f.now);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("QEMU's SHUTDOWN is gray: what comes behind it does not matter until a session or a reset") {
  HealthFixture f;
  f.makeGreen();
  f.health.vmGone(f.now);
  f.health.paused(f.now);  // QEMU's STOP after its SHUTDOWN
  f.health.goodbye(f.now, Goodbye::SHUTDOWN);
  f.beat();
  f.health.linkLost(f.now);
  CHECK((f.saysAfter(1 * kj::HOURS) == "gray vm-off"));
  f.health.vmReset(f.now);
  CHECK((f.says() == "gray restarting"));
  f.health.linkUp(f.after(20 * S).now);
  f.beat();
  f.beats(1);
  CHECK((f.says() == "green on-time"));
}

TEST_CASE("QEMU tells of a VM that was never seen, too") {
  HealthFixture f;
  f.health.configured(f.now);
  f.health.paused(f.now);
  CHECK((f.says() == "gray paused"));
  f.health.resumed(f.now);
  CHECK((f.says() == "gray never-seen"));
  f.health.vmGone(f.now);
  CHECK((f.says() == "gray vm-off"));
  f.health.vmReset(f.now);
  CHECK((f.says() == "gray never-seen"));
}

TEST_CASE("a refused handshake is the reason of red where there is nothing better to say, and is forgotten") {
  struct Row {
    HandshakeRefusal why;
    kj::StringPtr says;
  };
  const Row rows[] = {{HandshakeRefusal::KEYS_REJECTED, "red keys-rejected"},
                      {HandshakeRefusal::CLONED_IDENTITY, "red cloned-identity"},
                      {HandshakeRefusal::ROLLED_BACK, "red rolled-back"}};
  for (auto& row : rows) {
    HealthFixture f;
    f.health.configured(f.now);
    f.health.handshakeRefused(f.now, row.why);
    CHECK((f.says() == row.says));
    f.health.handshakeRefused(f.after(60 * S).now, row.why);
    CHECK((f.saysAfter(REFUSED_MEMORY - 1 * MS) == row.says));
    CHECK((f.saysAfter(1 * MS) == "gray never-seen"));

    HealthFixture up;
    up.makeGreen();
    up.health.handshakeRefused(up.now, row.why);  // anybody in the guest can knock
    CHECK((up.says() == "green on-time"));
    up.health.linkLost(up.now);
    up.health.handshakeRefused(up.now, row.why);
    CHECK((up.saysAfter(RED - 1 * MS) == "yellow link-lost"));
    CHECK((up.saysAfter(1 * MS) == row.says));
    up.health.linkUp(up.now);
    CHECK((up.says() == "red link-lost"));
    up.sequence = 0;
    up.beat();
    up.beats(1);
    CHECK((up.says() == "green on-time"));
  }
}

TEST_CASE("a VM in quarantine lives and is not green until its next session") {
  HealthFixture f;
  f.makeGreen();
  f.health.quarantined(f.now);
  CHECK((f.says() == "yellow quarantined"));
  f.beats(10);
  CHECK((f.says() == "yellow quarantined"));
  CHECK((f.saysAfter(RED) == "red silent"));
  f.beat();
  f.health.linkUp(f.now);
  f.sequence = 0;
  f.beats(2);
  CHECK((f.says() == "green on-time"));
  f.health.linkLost(f.now);
  f.health.quarantined(f.now);  // of a session that is gone
  f.health.linkUp(f.now);
  CHECK((f.says() == "yellow connected"));
}

TEST_CASE("each change is told once, from what was told before to what is, and nothing is told that did not change") {
  HealthFixture f;
  CHECK(f.health.takeChange() == nullptr);
  f.makeGreen();
  auto change = KJ_ASSERT_NONNULL(f.health.takeChange());
  CHECK(change.before.reason == Reason::NOT_ENROLLED);
  CHECK(change.after.reason == Reason::ON_TIME);
  CHECK(change.after.since == f.now);
  CHECK(f.health.takeChange() == nullptr);
  f.beats(100);
  CHECK(f.health.takeChange() == nullptr);
  f.health.evaluate(f.now += 2 * S);
  change = KJ_ASSERT_NONNULL(f.health.takeChange());
  CHECK(change.before.colour == Colour::GREEN);
  CHECK(change.after.reason == Reason::LATE);
  CHECK(change.after.since == f.now - 2 * S + LATE);
  f.health.evaluate(f.now += 10 * S);
  f.health.evaluate(f.now += 10 * S);
  CHECK(KJ_ASSERT_NONNULL(f.health.takeChange()).after.colour == Colour::RED);
  CHECK(f.health.takeChange() == nullptr);
}

TEST_CASE("a clock that steps back counts as standing still") {
  HealthFixture f;
  f.makeGreen();
  auto now = f.now;
  f.health.evaluate(now + 2 * S);
  f.health.heartbeat(now - 5 * S, {100, 1 * S, 0 * S, GuestState::RUNNING});
  CHECK(f.health.evaluate(now).reason == Reason::RECOVERING);
  CHECK(f.health.evaluate(now).since == now + 2 * S);
  CHECK(f.health.evaluate(now + 2 * S + RED).reason == Reason::SILENT);
}

TEST_CASE("names are stable kebab-case, texts are printable, codes come back as what they were") {
  CHECK(allReasons().size() == 25);
  for (auto reason : allReasons()) {
    auto name = reasonName(reason);
    CHECK(name.size() > 2);
    for (char c : name) CHECK(((c >= 'a' && c <= 'z') || c == '-'));
    for (char c : describe(reason)) CHECK((c >= ' ' && c <= '~'));
    CHECK(reasonFromCode(uint16_t(reason)) == reason);
    for (auto other : allReasons())
      CHECK((other == reason || (reasonName(other) != name && describe(other) != describe(reason))));
  }
  unsigned known = 0;
  for (unsigned code = 0; code <= 0xffff; ++code) known += reasonFromCode(uint16_t(code)) != Reason::UNKNOWN;
  CHECK(known == allReasons().size());
  for (unsigned code = 0; code < 256; ++code) CHECK((colourFromCode(uint8_t(code)) == nullptr) == (code > 3));
  CHECK((colourName(Colour::GRAY) == "gray"));
  CHECK((reasonName(Reason::UNKNOWN) == "unknown"));
  CHECK((reasonName(Reason(9999)) == "unknown"));
  CHECK((guestStateName(GuestState::FROZEN) == "frozen"));
}

}  // namespace
}  // namespace postern::host::test
