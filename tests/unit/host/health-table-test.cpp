// The table "What happens to the VM, and what is seen" of docs/OPERATIONS.md, cell by cell, as events of each
// transport. What happens, happens 400 ms after a heartbeat of a VM that is green.

#include <doctest/doctest.h>

#include <string>

#include "host/health/health.h"
#include "tests/unit/host/health-fixture.h"

namespace postern::host::test {
namespace {

using Event = void (*)(HealthFixture&);

struct Seen {
  int64_t afterMs;  // since it happened
  kj::StringPtr says;
};

struct Cell {
  const char* what;
  kj::StringPtr transports;
  Event happen;
  Seen seen[3];
  Event comeBack = nullptr;  // then a heartbeat at once, and one a second: green with the second
  kj::StringPtr back = nullptr;
};

void nothing(HealthFixture&) {}
void cut(HealthFixture& f) {
  f.health.linkLost(f.now);
}
void portClosed(HealthFixture& f) {
  f.health.linkLost(f.now, LinkLoss::PORT_CLOSED);
}
void newSession(HealthFixture& f) {
  f.health.linkUp(f.now);
  f.sequence = 0;
}
void stopped(HealthFixture& f) {
  f.health.goodbye(f.now, Goodbye::AGENT_STOPPED);
  cut(f);
}
void rebooting(HealthFixture& f) {
  f.beat(GuestState::STOPPING);
  CHECK((f.says() == "yellow stopping"));
  f.health.goodbye(f.now, Goodbye::RESTART);
  cut(f);
}
void rebootingWithQmp(HealthFixture& f) {
  rebooting(f);
  f.health.vmReset(f.now);
}
void paused(HealthFixture& f) {
  f.health.paused(f.now);
}
void resumed(HealthFixture& f) {
  f.health.resumed(f.now);
}
void reset(HealthFixture& f) {
  f.health.vmReset(f.now);
}
void gone(HealthFixture& f) {
  f.health.vmGone(f.now);
  cut(f);
}

const Cell CELLS[] = {
    {"agent stopped in good order",
     "serial, with QMP, vsock, unix",
     stopped,
     {{0, "gray agent-stopped"}, {60'000, "gray agent-stopped"}, {86'400'000, "gray agent-stopped"}},
     newSession,
     "yellow connected"},
    {"agent killed, back at once",
     "serial",
     nothing,
     {{0, "green on-time"}, {500, "green on-time"}, {1000, "green on-time"}},
     newSession,
     "green on-time"},
    {"agent killed, back a little later",
     "serial",
     nothing,
     {{0, "green on-time"}, {1350, "yellow late"}, {2500, "yellow late"}},
     newSession,
     "yellow recovering"},
    {"agent killed, back",
     "with QMP",
     portClosed,
     {{0, "yellow port-closed"}, {1000, "yellow port-closed"}, {2500, "yellow port-closed"}},
     newSession,
     "yellow connected"},
    {"agent killed, back",
     "vsock, unix",
     cut,
     {{0, "yellow link-lost"}, {1000, "yellow link-lost"}, {2500, "yellow link-lost"}},
     newSession,
     "yellow connected"},
    {"agent killed",
     "serial",
     nothing,
     {{1349, "green on-time"}, {1350, "yellow late"}, {2600, "red silent"}},
     newSession,
     "yellow recovering"},
    {"agent killed",
     "with QMP",
     portClosed,
     {{0, "yellow port-closed"}, {2599, "yellow port-closed"}, {2600, "red port-closed"}},
     newSession,
     "yellow recovering"},
    {"agent killed",
     "vsock, unix",
     cut,
     {{0, "yellow link-lost"}, {2599, "yellow link-lost"}, {2600, "red link-lost"}},
     newSession,
     "yellow recovering"},
    {"agent or guest hung",
     "serial, with QMP, vsock, unix",
     nothing,
     {{1349, "green on-time"}, {1350, "yellow late"}, {2600, "red silent"}},
     nothing,
     "yellow recovering"},
    {"link cut",
     "serial, with QMP, vsock, unix",
     cut,
     {{0, "yellow link-lost"}, {2599, "yellow link-lost"}, {2600, "red link-lost"}},
     newSession,
     "yellow recovering"},
    {"VM paused",
     "serial, vsock, unix",
     nothing,
     {{1349, "green on-time"}, {1350, "yellow late"}, {2600, "red silent"}},
     nothing,
     "yellow recovering"},
    {"VM paused",
     "with QMP",
     paused,
     {{0, "gray paused"}, {60'000, "gray paused"}, {86'400'000, "gray paused"}},
     resumed,
     "yellow resumed"},
    {"VM rebooting",
     "serial, vsock, unix",
     rebooting,
     {{0, "gray restarting"}, {10'000, "gray restarting"}, {60'000, "gray restarting"}},
     newSession,
     "yellow connected"},
    {"VM rebooting",
     "with QMP",
     rebootingWithQmp,
     {{0, "gray restarting"}, {10'000, "gray restarting"}, {60'000, "gray restarting"}},
     newSession,
     "yellow connected"},
    {"reset button",
     "with QMP",
     reset,
     {{0, "gray restarting"}, {10'000, "gray restarting"}, {60'000, "gray restarting"}},
     newSession,
     "yellow connected"},
    {"reset button",
     "vsock, unix",
     cut,
     {{0, "yellow link-lost"}, {2600, "red link-lost"}, {60'000, "red link-lost"}},
     newSession,
     "yellow recovering"},
    {"VM killed", "serial, unix", cut, {{0, "yellow link-lost"}, {2599, "yellow link-lost"}, {2600, "red link-lost"}}},
    {"VM killed", "with QMP", gone, {{0, "gray vm-off"}, {2600, "gray vm-off"}, {86'400'000, "gray vm-off"}}},
};

TEST_CASE("the table of docs/OPERATIONS.md: what is seen when, and how it comes back") {
  for (auto& cell : CELLS) {
    CAPTURE(cell.what);
    CAPTURE(std::string(cell.transports.cStr()));
    HealthFixture f;
    f.makeGreen();
    f.after(400 * MS);
    cell.happen(f);
    auto happened = f.now;
    for (auto& seen : cell.seen) {
      f.now = happened + seen.afterMs * MS;
      CAPTURE(seen.afterMs);
      CHECK((f.says() == seen.says));
    }
    if (cell.comeBack == nullptr) continue;
    cell.comeBack(f);
    f.beat();
    CHECK((f.says() == cell.back));
    f.beats(2);  // the second of them where the first one was late
    CHECK((f.says() == "green on-time"));
  }
}

}  // namespace
}  // namespace postern::host::test
