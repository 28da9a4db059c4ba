// The watch and a real QEMU, without a guest: its second QMP socket is the test's.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "host/qmp/qmp-watch.h"
#include "tests/unit/host/qmp-fixture.h"

namespace postern::host {

using test::FakeQemu;
using test::QmpLab;

namespace {

class Qemu {
 public:
  Qemu(QmpLab& lab, kj::ArrayPtr<const kj::StringPtr> machine) : lab(lab), control(lab.folder.path("control")) {
    auto watched = kj::str("unix:", lab.path, ",server=on,wait=off");
    auto own = kj::str("unix:", control, ",server=on,wait=off");
    kj::Vector<char*> arguments;
    auto add = [&](kj::StringPtr text) { arguments.add(const_cast<char*>(text.cStr())); };
    for (auto text : {"qemu-system-x86_64"_kj, "-display"_kj, "none"_kj, "-nodefaults"_kj, "-no-user-config"_kj,
                      "-qmp"_kj, watched.asPtr(), "-qmp"_kj, own.asPtr()}) {
      add(text);
    }
    for (auto text : machine) add(text);
    arguments.add(nullptr);
    pid_t parent = getpid();
    KJ_SYSCALL(pid = fork());
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      execvp(arguments[0], arguments.begin());
      _exit(127);
    }
  }
  ~Qemu() {
    if (pid > 0) kill();
  }
  KJ_DISALLOW_COPY(Qemu);

  void kill() {
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    pid = 0;
  }
  // By itself, in time.
  bool hasEnded() {
    bool ended = lab.until([&] { return waitpid(pid, nullptr, WNOHANG) == pid; });
    if (ended) pid = 0;
    return ended;
  }

  // A command over the other socket, and its answer's line.
  kj::String command(kj::StringPtr name) {
    if (session == nullptr) connect();
    auto& qmp = KJ_ASSERT_NONNULL(session);
    qmp.send(kj::str("{\"execute\":\"", name, "\",\"id\":77}\n"));
    for (;;) {
      auto line = qmp.line();
      if (line.size() == 0 || line.startsWith("{\"return\"") || line.startsWith("{\"id\"")) return line;
    }
  }

 private:
  QmpLab& lab;
  const kj::String control;
  pid_t pid = 0;
  kj::Maybe<FakeQemu> session;

  void connect() {
    REQUIRE(lab.until([&] { return ::access(control.cStr(), F_OK) == 0; }));
    auto address = lab.io.provider->getNetwork().parseAddress(kj::str("unix:", control)).wait(lab.io.waitScope);
    session.emplace(address->connect().wait(lab.io.waitScope), lab.io.waitScope);
    KJ_ASSERT_NONNULL(session).line();  // its greeting
    CHECK(command("qmp_capabilities").startsWith("{\"return\""));
  }
};

constexpr kj::StringPtr NO_MACHINE[] = {"-machine"_kj, "none"_kj, "-S"_kj};
constexpr kj::StringPtr PC[] = {"-machine"_kj, "pc"_kj, "-accel"_kj, "tcg"_kj, "-m"_kj, "16"_kj, "-S"_kj};
constexpr kj::StringPtr PC_NO_REBOOT[] = {"-machine"_kj, "pc"_kj, "-accel"_kj, "tcg"_kj,
                                          "-m"_kj,       "16"_kj, "-S"_kj,     "-no-reboot"_kj};

// What has been told since the first connection; before it QEMU may have been too slow to start.
kj::String since(QmpLab& lab) {
  size_t first = 0;
  while (first < lab.told.told.size() && lab.told.told[first] != "connected") ++first;
  return kj::strArray(lab.told.told.asPtr().slice(first, lab.told.told.size()), " | ");
}

bool becomes(QmpLab& lab, kj::StringPtr expected) {
  bool is = lab.until([&] { return since(lab) == expected; });
  if (!is) MESSAGE(std::string(lab.told.all().cStr()));
  return is;
}

}  // namespace

TEST_CASE("real QEMU: pause, run, reset and quit by somebody else are told") {
  QmpLab lab;
  Qemu qemu(lab, PC);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  qemu.command("cont");
  REQUIRE(becomes(lab, "connected | STOP | RESUME"));
  qemu.command("stop");
  REQUIRE(becomes(lab, "connected | STOP | RESUME | STOP"));
  auto reset = watch->whenOff(true);
  qemu.command("system_reset");
  REQUIRE(becomes(lab, "connected | STOP | RESUME | STOP | RESET"));
  CHECK((reset.wait(lab.io.waitScope) == "QEMU says RESET: host-qmp-system-reset, by the host"));
  auto off = watch->whenOff(false);
  qemu.command("quit");
  CHECK((off.wait(lab.io.waitScope) == "QEMU says SHUTDOWN: host-qmp-quit, by the host"));
  REQUIRE(becomes(lab, "connected | STOP | RESUME | STOP | RESET | SHUTDOWN | lost: QEMU closed it"));
  CHECK(qemu.hasEnded());
}

TEST_CASE("real QEMU: force resets and ends it") {
  QmpLab lab;
  Qemu qemu(lab, PC);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  auto reset = watch->whenOff(true);
  CHECK(watch->force(true).wait(lab.io.waitScope) == nullptr);
  reset.wait(lab.io.waitScope);
  auto off = watch->whenOff(false);
  CHECK(watch->force(false).wait(lab.io.waitScope) == nullptr);
  off.wait(lab.io.waitScope);
  CHECK(qemu.hasEnded());
  REQUIRE(becomes(lab, "connected | STOP | RESET | SHUTDOWN | lost: QEMU closed it"));
}

TEST_CASE("real QEMU: a machine of no kind can be ended as well") {
  QmpLab lab;
  Qemu qemu(lab, NO_MACHINE);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  CHECK(watch->force(false).wait(lab.io.waitScope) == nullptr);
  CHECK(qemu.hasEnded());
}

TEST_CASE("real QEMU: killed, it has shut down; started again, it is found") {
  QmpLab lab;
  kj::Maybe<Qemu> qemu;
  qemu.emplace(lab, PC);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  auto off = watch->whenOff(false);
  KJ_ASSERT_NONNULL(qemu).kill();
  CHECK((off.wait(lab.io.waitScope) == "QEMU has ended"));
  REQUIRE(becomes(lab, "connected | STOP | lost: QEMU closed it | SHUTDOWN"));
  ::unlink(lab.folder.path("control").cStr());
  qemu = nullptr;
  qemu.emplace(lab, PC);
  REQUIRE(becomes(lab, "connected | STOP | lost: QEMU closed it | SHUTDOWN | connected | STOP"));
}

TEST_CASE("real QEMU: another process behind the same socket is another VM's life") {
  QmpLab lab;
  kj::Maybe<Qemu> first;
  first.emplace(lab, NO_MACHINE);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  // Its successor takes the name before the watch has a chance to see that nobody listens.
  auto other = lab.folder.path("elsewhere");
  auto real = kj::mv(lab.path);
  lab.path = kj::str(other);
  kj::Maybe<Qemu> second;
  ::unlink(lab.folder.path("control").cStr());
  second.emplace(lab, NO_MACHINE);
  REQUIRE(lab.until([&] { return ::access(other.cStr(), F_OK) == 0; }));
  lab.pass(300 * kj::MILLISECONDS);  // it listens
  REQUIRE(::rename(other.cStr(), real.cStr()) == 0);
  KJ_ASSERT_NONNULL(first).kill();
  CHECK(becomes(lab, "connected | STOP | lost: QEMU closed it | SHUTDOWN | connected | STOP"));
}

TEST_CASE("real QEMU: while another client has the socket the watch waits, and then has its turn") {
  QmpLab lab;
  Qemu qemu(lab, NO_MACHINE);
  REQUIRE(lab.until([&] { return ::access(lab.path.cStr(), F_OK) == 0; }));
  lab.pass(300 * kj::MILLISECONDS);
  auto address = lab.io.provider->getNetwork().parseAddress(kj::str("unix:", lab.path)).wait(lab.io.waitScope);
  kj::Maybe<FakeQemu> other;
  other.emplace(address->connect().wait(lab.io.waitScope), lab.io.waitScope);
  CHECK(KJ_ASSERT_NONNULL(other).line().startsWith("{\"QMP\""));
  auto watch = lab.watch();
  REQUIRE(lab.hasTold(1));
  CHECK(lab.told.told[0].startsWith("lost: another program uses it"));
  other = nullptr;
  REQUIRE(becomes(lab, "connected | STOP"));
  CHECK(lab.told.count("lost: ") == 1);
}

TEST_CASE("real QEMU: with -no-reboot a reset is an end, and counts as the reset that was waited for") {
  QmpLab lab;
  Qemu qemu(lab, PC_NO_REBOOT);
  auto watch = lab.watch();
  REQUIRE(becomes(lab, "connected | STOP"));
  auto reset = watch->whenOff(true);
  CHECK(watch->force(true).wait(lab.io.waitScope) == nullptr);
  CHECK((reset.wait(lab.io.waitScope) == "QEMU says SHUTDOWN: host-qmp-system-reset, by the host"));
  CHECK(qemu.hasEnded());
}

}  // namespace postern::host
