#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "host/board/board-writer.h"
#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::test;

namespace {

void addStatus(hs::VmStatus::Builder status, kj::StringPtr name, kj::StringPtr colour, kj::StringPtr reason) {
  status.setName(name);
  status.setColour(colour);
  status.setReason(reason);
  status.setSinceMilliseconds(42'000);
  status.setHeartbeatMilliseconds(colour == "gray"_kj ? -1 : 400);
  status.setAgentVersion("0.1.0");
  status.setUptimeSeconds(7200);
}

// A posternd that knows web1 (of that colour) and db1 (green).
void knowTwo(CliWorld& world, kj::StringPtr colour = "green"_kj, kj::StringPtr reason = "on-time"_kj) {
  world.control.status = [colour, reason](hs::Control::StatusResults::Builder results) {
    auto vms = results.initVms(2);
    addStatus(vms[0], "web1", colour, reason);
    addStatus(vms[1], "db1", "green", "on-time");
  };
}

host::BoardVm boardVm(kj::StringPtr name, host::Colour colour, host::Reason reason, kj::TimePoint now) {
  host::BoardVm vm;
  vm.name = kj::str(name);
  vm.verdict.colour = colour;
  vm.verdict.reason = reason;
  vm.verdict.since = now - 3 * kj::SECONDS;
  return vm;
}

}  // namespace

TEST_CASE("status is a table by name") {
  CliWorld world;
  knowTwo(world);
  CHECK(world.run({"status"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), kj::str("VM    STATE  FOR   HEARTBEAT  AGENT  UP   REASON\n"
                                     "db1   green  42 s  0.4 s ago  0.1.0  2 h  ",
                                     host::describe(host::Reason::ON_TIME),
                                     "\n"
                                     "web1  green  42 s  0.4 s ago  0.1.0  2 h  ",
                                     host::describe(host::Reason::ON_TIME), "\n"));
}

TEST_CASE("status as JSON is one document") {
  CliWorld world;
  knowTwo(world, "gray", "never-seen");
  CHECK(world.run({"status", "web1", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(),
             kj::str("{\"ok\":true,\"vms\":[{\"vm\":\"web1\",\"state\":\"gray\",\"reason\":\"never-seen\","
                     "\"explanation\":\"",
                     host::describe(host::Reason::NEVER_SEEN),
                     "\",\"sinceSeconds\":42,\"heartbeatSeconds\":null,\"agentVersion\":\"0.1.0\","
                     "\"uptimeSeconds\":7200}]}\n"));
}

TEST_CASE("--check speaks by its exit status: 0 green, 1 yellow, 4 red or gray, the worst of several") {
  struct Case {
    kj::StringPtr colour;
    ExitStatus status;
  };
  for (auto& one :
       {Case{"green", ExitStatus::DONE}, Case{"yellow", ExitStatus::FAILED}, Case{"red", ExitStatus::NOT_CONNECTED},
        Case{"gray", ExitStatus::NOT_CONNECTED}, Case{"a new one", ExitStatus::NOT_CONNECTED}}) {
    CliWorld world;
    knowTwo(world, one.colour);
    CHECK(world.run({"status", "db1", "web1", "--check"}) == one.status);
    CHECK(world.run({"status", "db1", "--check"}) == ExitStatus::DONE);
  }
}

TEST_CASE("a VM that is not known is a usage error that names the nearest") {
  CliWorld world;
  knowTwo(world);
  CHECK(world.run({"status", "web2", "--check"}) == ExitStatus::USAGE);
  CHECK_TEXT(world.errors(), "postern: web2: unknown VM; did you mean 'web1'?\n");
}

TEST_CASE("as many VMs as the board has room for are shown and listed") {
  CliWorld world;
  world.control.status = [](hs::Control::StatusResults::Builder results) {
    auto vms = results.initVms(4096);
    for (unsigned i = 0; i < 4096; ++i) addStatus(vms[i], kj::str("vm-of-some-length-", i), "green", "on-time");
  };
  CHECK(world.run({"status"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "\nvm-of-some-length-4095 "));
  world.control.list = [](hs::Control::ListVmsResults::Builder results) {
    auto vms = results.initVms(4096);
    for (unsigned i = 0; i < 4096; ++i) {
      auto settings = vms[i].initSettings();
      settings.setName(kj::str("vm-of-some-length-", i));
      settings.setTransport("serial:/var/lib/libvirt/qemu/channel/target/domain-1-web/org.postern.agent.0");
      vms[i].setHostFingerprint("00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff");
      addStatus(vms[i].initStatus(), "x", "green", "on-time");
    }
  };
  CHECK(world.run({"vm", "list"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "\nvm-of-some-length-4095 "));
}

TEST_CASE("no VMs yet: the first step is named") {
  CliWorld world;
  CHECK(world.run({"status"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "postern enroll VM --transport"));
}

TEST_CASE("the status board is read without a call to posternd; where it cannot be, posternd is asked") {
  CliWorld world;
  knowTwo(world);
  auto board = world.folder.path("root/run/postern/board");
  std::filesystem::create_directories(world.folder.path("root/run/postern").cStr());
  {
    auto now = world.now();
    host::BoardWriter writer(board, now, 8);
    REQUIRE(writer.add(boardVm("fast1", host::Colour::RED, host::Reason::SILENT, now)) != nullptr);
    CHECK(world.run({"status", "fast1", "--check"}) == ExitStatus::NOT_CONNECTED);
    CHECK(contains(world.output(), "fast1  red    3.0 s"));
    CHECK(world.control.calls == 0);
  }
  // Its writer has ended: what it says is the past.
  CHECK(world.run({"status"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "web1"));
  CHECK(!contains(world.output(), "fast1"));
  CHECK(world.control.calls == 1);
}

TEST_CASE("neither board nor posternd: one line says how to start it") {
  CliWorld world;
  world.notRunning = true;
  CHECK(world.run({"status"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(),
             kj::str("postern: posternd is not running (no ", world.folder.path("root/run/postern/control.sock"),
                     "); systemctl start posternd\n"));
}

TEST_CASE("--check without a posternd is as bad as red, and says why") {
  {
    CliWorld world;
    world.notRunning = true;
    CHECK(world.run({"status", "web1", "--check"}) == ExitStatus::NOT_CONNECTED);
    CHECK(contains(world.errors(), "postern: posternd is not running"));
    CHECK(world.run({"status", "web1", "--check", "--json"}) == ExitStatus::NOT_CONNECTED);
    CHECK(contains(world.output(), "\"kind\":\"not-connected\""));
    CHECK(contains(world.output(), "\"exitStatus\":4"));
  }
  // Nothing but that becomes a verdict.
  CliWorld other;
  knowTwo(other);
  CHECK(other.run({"status", "web9", "--check"}) == ExitStatus::USAGE);
}

TEST_CASE("--watch in a pipe prints changes alone, until Ctrl-C") {
  CliWorld world;
  unsigned looks = 0;
  world.control.status = [&looks](hs::Control::StatusResults::Builder results) {
    ++looks;
    auto vms = results.initVms(looks < 3 ? 2 : 1);
    addStatus(vms[0], "web1", looks < 2 ? "green" : "yellow", looks < 2 ? "on-time" : "late");
    if (looks < 3) addStatus(vms[1], "db1", "green", "on-time");
  };
  world.interruptAtOutput("db1: removed");
  CHECK(world.run({"status", "--watch"}) == ExitStatus::INTERRUPTED);
  auto onTime = host::describe(host::Reason::ON_TIME);
  CHECK_TEXT(world.output(), kj::str("db1: green (", onTime, ")\nweb1: green (", onTime, ")\nweb1: yellow (",
                                     host::describe(host::Reason::LATE), ")\ndb1: removed\n"));
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("--watch on a terminal redraws, with colours") {
  CliWorld world;
  knowTwo(world);
  world.terminal = true;
  world.colours = true;
  world.interruptAtOutput("web1");
  CHECK(world.run({"status", "--watch"}) == ExitStatus::INTERRUPTED);
  CHECK(world.output().startsWith("\033[H\033[2J"));
  CHECK(contains(world.output(), "\033[32mgreen\033[0m"));
}

TEST_CASE("--watch --json gives lines of JSON") {
  CliWorld world;
  knowTwo(world);
  world.interruptAtOutput("web1");
  CHECK(world.run({"status", "--watch", "--json"}) == ExitStatus::INTERRUPTED);
  CHECK(world.output().startsWith("{\"vm\":\"db1\",\"state\":\"green\""));
}

TEST_CASE("a terminal without colours gets none") {
  CliWorld world;
  knowTwo(world);
  world.terminal = true;
  CHECK(world.run({"status"}) == ExitStatus::DONE);
  CHECK(!contains(world.output(), "\033"));
}
