// What each command prints when all goes well, and what it makes of hostile answers.

#include <fcntl.h>
#include <unistd.h>

#include "host/audit/audit-line.h"
#include "protocol/bundle.h"
#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;

namespace {

// Every byte that a terminal could take for a command, in a text of a guest.
constexpr auto HOSTILE = "a\033]0;x\007\n\r\302\233[2J\377\200\"\\"_kj;

bool isSafe(kj::StringPtr text) {
  for (char c : text) {
    if ((c < ' ' || c > '~') && c != '\n') return false;
  }
  return true;
}

void write(kj::StringPtr path, kj::StringPtr text) {
  auto fd = kj::AutoCloseFd(open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  KJ_REQUIRE(::write(fd, text.begin(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("ping prints link and total for each, and least, middle, 99th and greatest of both at the end") {
  CliWorld world;
  CHECK(world.run({"ping", "web1", "-c", "3", "-i", "1ms"}) == ExitStatus::DONE);
  CHECK(world.session.pings == 3);
  CHECK(world.output().startsWith("web1: ping 1: link 0.080 ms, total "));
  CHECK(contains(world.output(), "\nweb1: 3 pings\nlink  min/p50/p99/max 0.080 ms / 0.080 ms / 0.080 ms / 0.080 ms\n"));
  CHECK(contains(world.output(), "\ntotal min/p50/p99/max "));
}

TEST_CASE("ping -i 0 is a flood: nothing for each, and the summary") {
  CliWorld world;
  CHECK(world.run({"ping", "web1", "-c", "500", "-i", "0"}) == ExitStatus::DONE);
  CHECK(world.session.pings == 500);
  CHECK(world.output().startsWith("web1: 500 pings\n"));
}

TEST_CASE("ping --json is one document with figures in milliseconds") {
  CliWorld world;
  CHECK(world.run({"ping", "web1", "-c", "2", "-i", "0", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK(document["ok"].flag());
  CHECK(document["count"].number() == 2);
  CHECK(document["link"]["p50Ms"].number() == doctest::Approx(0.08));
  CHECK(document["total"]["maxMs"].number() > 0);
}

TEST_CASE("a ping that goes on until Ctrl-C says what it measured") {
  CliWorld world;
  world.interruptAtOutput("ping 2:");
  CHECK(world.run({"ping", "web1", "-c", "0", "-i", "1ms"}) == ExitStatus::INTERRUPTED);
  CHECK(contains(world.output(), " pings\nlink  min/p50/p99/max"));
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("a link that took longer than anything can is no negative number") {
  CliWorld world;
  world.session.linkNanoseconds = UINT64_MAX;
  CHECK(world.run({"ping", "web1", "-c", "1"}) == ExitStatus::DONE);
  CHECK(!contains(world.output(), "-"));
}

TEST_CASE("info prints what the guest says, each part by itself") {
  CliWorld world;
  world.session.info = [](schema::Info::Builder info) {
    info.setAgentVersion("0.1.0");
    info.initFeatures(1).set(0, "power.suspend");
    auto os = info.initOs().initValue();
    os.setName("Debian GNU/Linux 12");
    os.setBootedSecondsAgo(3600);
    auto interface = info.initNetwork().initValue(1)[0];
    interface.setName("eth0");
    interface.setUp(true);
    interface.initAddresses(1).set(0, "192.0.2.7/24");
    info.initFilesystems().setTimedOut(2000);
    info.initUsers().initRefused().setReason(schema::Refusal::Reason::DENIED);
  };
  CHECK(world.run({"info", "web1"}) == ExitStatus::DONE);
  CHECK(contains(world.output(),
                 "web1: postern-agent 0.1.0 (power.suspend)\nsystem\n  system        Debian GNU/Linux 12\n"));
  CHECK(contains(world.output(), "booted        1 h ago\n"));
  CHECK(contains(world.output(), "  INTERFACE  STATE  MAC  ADDRESSES\n  eth0       up          192.0.2.7/24\n"));
  CHECK(contains(world.output(), "file systems\n  no answer within 2000 ms\n"));
  CHECK(contains(world.output(), "users\n  the guest's policy denies it (no rule allows it)\n"));

  CHECK(world.run({"info", "web1", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK_TEXT(document["os"]["name"].text(), "Debian GNU/Linux 12");
  CHECK_TEXT(document["network"].at(0)["addresses"].at(0).text(), "192.0.2.7/24");
  CHECK(document["filesystems"]["timedOutMs"].number() == 2000);
  CHECK_TEXT(document["users"]["refused"]["lock"].text(), "guest");
}

TEST_CASE("info of a hostile guest is safe on a terminal and valid as JSON") {
  CliWorld world;
  world.session.info = [](schema::Info::Builder info) {
    info.setAgentVersion(HOSTILE);
    info.initFeatures(1).set(0, HOSTILE);
    auto os = info.initOs().initValue();
    os.setName(HOSTILE);
    os.setHostName(HOSTILE);
    os.setKernel(kj::str(kj::repeat('k', 20'000)));
    os.setBootedSecondsAgo(UINT64_MAX);
    auto interface = info.initNetwork().initValue(1)[0];
    interface.setName(HOSTILE);
    interface.initAddresses(1).set(0, HOSTILE);
    auto fileSystem = info.initFilesystems().initValue(1)[0];
    fileSystem.setMountPoint(HOSTILE);
    fileSystem.setTotalBytes(UINT64_MAX);
    auto user = info.initUsers().initValue(1)[0];
    user.setName(HOSTILE);
    user.setLoggedInSecondsAgo(UINT64_MAX);
  };
  CHECK(world.run({"info", "web1"}) == ExitStatus::DONE);
  CHECK(isSafe(world.output()));
  CHECK(world.output().size() < 4000);
  CHECK(world.run({"info", "web1", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK(document["os"]["hostName"].text().startsWith("a\033]0;x\007\n\r\302\233[2J\357\277\275"));
}

TEST_CASE("info with nothing granted of a part says whose policy it is") {
  CliWorld world;
  CHECK(world.run({"info", "web1"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "system\n  not asked for: the host's policy does not allow it\n"));
}

TEST_CASE("events are lines, safe ones, and JSON lines with --json") {
  CliWorld world;
  world.control.events = [](hs::EventSink::Client sink) -> kj::Promise<void> {
    auto first = sink.eventRequest();
    auto event = first.initEvent();
    event.setTime("2026-11-23T03:00:00Z");
    event.setKind("policy-reload");
    event.setText(HOSTILE);
    return first.send().then([sink]() mutable {
      auto second = sink.eventRequest();
      second.initEvent().setVm("web1");
      return second.send();
    });
  };
  CHECK(world.run({"events"}) == ExitStatus::DONE);
  CHECK(world.output().startsWith("2026-11-23T03:00:00Z  host  policy-reload  a?]0;x???"));
  CHECK(isSafe(world.output()));
  CHECK(world.run({"events", "--json"}) == ExitStatus::DONE);
  auto end = KJ_ASSERT_NONNULL(world.output().findFirst('\n'));
  auto line = kj::heapString(world.output().slice(0, end));
  CHECK_TEXT(JsonReader::read(line)["kind"].text(), "policy-reload");
}

TEST_CASE("events --follow goes on until Ctrl-C, longer than --timeout") {
  CliWorld world;
  world.control.events = [](hs::EventSink::Client) { return kj::Promise<void>(kj::NEVER_DONE); };
  world.interruptAfter(150 * kj::MILLISECONDS);
  CHECK(world.run({"events", "--follow", "--timeout", "0.02"}) == ExitStatus::INTERRUPTED);
}

TEST_CASE("vm list and show print what is known, safely") {
  CliWorld world;
  auto fill = [](hs::Vm::Builder vm) {
    auto settings = vm.initSettings();
    settings.setName("web1");
    settings.setTransport("serial:/run/web1.sock");
    settings.initTags(2).set(0, "prod");
    settings.getTags().set(1, HOSTILE);
    vm.setEnrolled(true);
    vm.setConnected(true);
    vm.setPeer(HOSTILE);
    vm.setGuestFingerprint("12:34");
    auto status = vm.initStatus();
    status.setName("web1");
    status.setColour("green");
    status.setReason("on-time");
  };
  world.control.list = [fill](hs::Control::ListVmsResults::Builder results) {
    auto vms = results.initVms(1);
    fill(vms[0]);
  };
  world.control.vm = fill;
  CHECK(world.run({"vm", "list"}) == ExitStatus::DONE);
  CHECK(
      world.output().startsWith("VM    ENROLMENT  LINK  STATE  TRANSPORT              TAGS\n"
                                "web1  enrolled   up    green  serial:/run/web1.sock  prod,a?]0"));
  CHECK(isSafe(world.output()));
  CHECK(world.run({"vm", "show", "web1"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "  guest fingerprint  12:34\n"));
  CHECK(isSafe(world.output()));
  CHECK(world.run({"vm", "list", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(JsonReader::read(world.output())["vms"].at(0)["guestFingerprint"].text(), "12:34");
  CHECK(world.run({"vm", "show", "web1", "--json"}) == ExitStatus::DONE);
  CHECK(JsonReader::read(world.output())["vm"]["connected"].flag());
}

TEST_CASE("vm set and remove say what they did") {
  CliWorld world;
  CHECK(world.run({"vm", "set", "web1", "--tag", "a,b"}) == ExitStatus::DONE);
  CHECK(world.control.tags.size() == 2);
  CHECK_TEXT(world.output(), "web1: changed\n");
  world.control.removedGrants = kj::str("[[allow]]\n");
  CHECK(world.run({"vm", "remove", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: removed; its keys are gone\npolicy that went with it:\n  [[allow]]\n");
  CHECK(world.run({"vm", "remove", "web1", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(JsonReader::read(world.output())["removedGrants"].text(), "[[allow]]\n");
}

TEST_CASE("policy explain prints the verdict and why; a denial explained is no denial") {
  CliWorld world;
  world.control.explanation = kj::str("no rule allows it\n", HOSTILE);
  CHECK(world.run({"policy", "explain", "--to", "web1", "--call", "ping"}) == ExitStatus::DONE);
  CHECK(world.output().startsWith("denied\n  no rule allows it\n  a?]0"));
  CHECK(isSafe(world.output()));
  world.control.allowed = true;
  CHECK(world.run({"policy", "explain", "--to", "web1", "--call", "ping", "--json"}) == ExitStatus::DONE);
  CHECK(JsonReader::read(world.output())["allowed"].flag());
  CHECK(world.run({"policy", "reload"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "policy cafe is in force\n");
}

TEST_CASE("policy check, test and diff work on files, with an exit status for scripts") {
  CliWorld world;
  auto good = world.folder.path("good.toml"), bad = world.folder.path("bad.toml");
  write(good,
        "policy = 1\ntest = [ { want = \"allow ops\", from = \"user:alice\", to = \"web1\", call = \"ping\" } ]\n"
        "[[allow]]\nid = \"ops\"\nfrom = \"user:alice\"\nto = \"web1\"\ncall = \"ping\"\n");
  write(bad, "policy = 1\n[[allow]]\nid = \"ops\"\nform = \"user:alice\"\nto = \"web1\"\ncall = \"ping\"\n");
  CHECK(world.run({"policy", "check", good}) == ExitStatus::DONE);
  CHECK(world.output().startsWith("sound: 1 file, 1 rule, 1 test passed\nhash "));
  CHECK(world.run({"policy", "test", good}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), kj::str("ok  ", good, ":2\n1 test passed\n"));
  CHECK(world.run({"policy", "check", bad}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), kj::str("postern: ", bad, ":4: unknown key 'form'")));
  CHECK(world.run({"policy", "check", bad, "--json"}) == ExitStatus::FAILED);
  auto document = JsonReader::read(world.output());
  CHECK(!document["ok"].flag());
  CHECK(document["exitStatus"].number() == 1);
  CHECK(document["problems"].at(0)["line"].number() >= 2);
  CHECK(world.run({"policy", "check", world.folder.path("none.toml")}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "No such file"));
  CHECK(world.run({"policy", "diff", good, good}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "both say the same\n");
  auto empty = world.folder.path("empty.toml");
  write(empty, "policy = 1\n");
  CHECK(world.run({"policy", "diff", good, empty}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "rule 'ops' removed\n");
  CHECK(world.run({"policy", "diff", bad, good}) == ExitStatus::FAILED);
  CHECK(world.run({"policy", "check"}) == ExitStatus::DONE);  // neither folder is there
  CHECK(world.output().startsWith("sound: 0 files"));
  CHECK(world.run({"policy", "check", "--folder", world.folder.path("here")}) == ExitStatus::DONE);
}

TEST_CASE("audit tail prints lines as they are, and never what a terminal would obey") {
  CliWorld world;
  world.control.audit = [](hs::Control::AuditResults::Builder results) {
    auto lines = results.initLines(2);
    lines.set(0, "{\"seq\":1}");
    lines.set(1, HOSTILE);
  };
  CHECK(world.run({"audit", "tail"}) == ExitStatus::DONE);
  CHECK(world.output().startsWith("{\"seq\":1}\na?]0"));
  CHECK(isSafe(world.output()));
  CHECK(world.run({"audit", "tail", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(JsonReader::read(world.output())["lines"].at(0).text(), "{\"seq\":1}");
}

TEST_CASE("audit verify reads the files itself: whole, altered, or not there") {
  CliWorld world;
  world.notRunning = true;
  CHECK(world.run({"audit", "verify"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "there is no audit log at"));
  auto file = world.folder.path("audit.log");
  kj::String line;
  {
    host::AuditEvent event;
    event.who = "user:alice"_kj;
    event.call = "ping"_kj;
    event.outcome = "allowed"_kj;
    host::LinePlace place;
    place.file = uint64_t(1);
    line = host::formatLine(event, place);
  }
  write(file, line);
  CHECK(world.run({"audit", "verify", file}) == ExitStatus::DONE);
  CHECK(world.output().startsWith("whole: 1 lines, 1 to 1, in 1 file\nhead "));
  CHECK(world.run({"audit", "verify", file, "--head", kj::str(kj::repeat('0', 64))}) == ExitStatus::FAILED);
  CHECK(world.run({"audit", "verify", file, "--json"}) == ExitStatus::DONE);
  CHECK(JsonReader::read(world.output())["lines"].number() == 1);
  auto alice = strstr(line.begin(), "alice");
  REQUIRE(alice != nullptr);
  *alice = 'm';
  write(file, line);
  CHECK(world.run({"audit", "verify", file}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), kj::str("postern: audit log: ", file)));
}
