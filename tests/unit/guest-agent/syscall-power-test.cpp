// The end of a guest by system calls, for real, in namespaces of its own: there reboot(2) ends the PID namespace and
// not the machine, "everything" is what runs in it, and a user namespace keeps the machine's file systems as they are.

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "guest-agent/power/power-way.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

constexpr int NO_NAMESPACES = 77;

bool writeText(kj::StringPtr path, kj::StringPtr text) {
  int fd = open(path.cStr(), O_WRONLY | O_CLOEXEC);
  return fd >= 0 && write(fd, text.begin(), text.size()) == ssize_t(text.size()) && close(fd) == 0;
}

enum class Manners { ENDS_IN_ORDER, IGNORES_SIGTERM };

// Some program of the guest.
[[noreturn]] void beProgram(Manners manners, kj::StringPtr mark) {
  static kj::StringPtr markFile;
  markFile = mark;
  if (manners == Manners::IGNORES_SIGTERM) {
    signal(SIGTERM, SIG_IGN);
  } else {
    signal(SIGTERM, [](int) {
      close(open(markFile.cStr(), O_WRONLY | O_CREAT, 0644));
      _exit(0);
    });
  }
  for (;;) pause();
}

// Process 1 of the namespaces.
[[noreturn]] void beInit(PowerAction action, Manners manners, kj::StringPtr mark) {
  // Everything below relies on it: in the machine's own namespaces nothing of this may run.
  if (getpid() != 1 || mount("proc", "/proc", "proc", 0, nullptr) < 0) _exit(NO_NAMESPACES);
  if (fork() == 0) beProgram(manners, mark);
  usleep(100000);
  {
    kj::UnixEventPort port;
    kj::EventLoop loop(port);
    kj::WaitScope scope(loop);
    Children children(port, [](kj::StringPtr) {});
    if (newSyscallPower()->start(action, children).wait(scope) != nullptr) _exit(1);
  }
  for (;;) {
    if (wait(nullptr) < 0) usleep(10000);
  }
}

// The wait status of the namespaces' process 1.
int runInNamespaces(PowerAction action, Manners manners, kj::StringPtr mark) {
  pid_t outer = fork();
  if (outer == 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) < 0 || !writeText("/proc/self/setgroups", "deny") ||
        !writeText("/proc/self/uid_map", kj::str("0 ", 0, " 1")) ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) {
      _exit(NO_NAMESPACES);
    }
    pid_t init = fork();
    if (init == 0) beInit(action, manners, mark);
    int status = 0;
    waitpid(init, &status, 0);
    _exit(WIFSIGNALED(status) ? 100 + WTERMSIG(status) : WEXITSTATUS(status));
  }
  int status = 0;
  waitpid(outer, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE(
    "a shutdown by system calls lets programs end in order and powers off; a restart kills those that do not end") {
  if (geteuid() != 0) {
    MESSAGE("not root: nothing was tested");
    return;
  }
  postern::test::TemporaryFolder folder;
  int off = runInNamespaces(PowerAction::SHUTDOWN, Manners::ENDS_IN_ORDER, folder.path("ended"));
  if (off == NO_NAMESPACES) {
    MESSAGE("no namespaces in this place: nothing was tested");
    return;
  }
  // What the kernel tells of a PID namespace that powered off (SIGINT), and of one that rebooted (SIGHUP): reboot(2).
  CHECK(off == 100 + SIGINT);
  CHECK(exists(folder.path("ended")));
  CHECK(runInNamespaces(PowerAction::RESTART, Manners::IGNORES_SIGTERM, folder.path("never")) == 100 + SIGHUP);
  CHECK_FALSE(exists(folder.path("never")));
}

}  // namespace
}  // namespace postern::guest::test
