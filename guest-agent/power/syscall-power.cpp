#include "guest-agent/power/syscall-power.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <linux/close_range.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest-agent/info/mounts.h"
#include "guest-agent/info/small-file.h"
#include "guest-agent/power/power-way.h"
#include "transport/connection.h"

namespace postern::guest {

namespace {

using Failure = kj::Maybe<kj::String>;
constexpr kj::StringPtr POWER_STATE = "/sys/power/state"_kj;
constexpr unsigned GOODBYE_MILLISECONDS = 500;
constexpr unsigned TERM_MILLISECONDS = 5000;
constexpr unsigned SYNC_MILLISECONDS = 10000;
constexpr unsigned READ_ONLY_MILLISECONDS = 5000;
constexpr unsigned STEP_MILLISECONDS = 50;

void sleepMilliseconds(unsigned milliseconds) {
  timespec rest{milliseconds / 1000, long(milliseconds % 1000) * 1000000};
  while (nanosleep(&rest, &rest) < 0 && errno == EINTR) continue;
}

// In a child, which is left to itself when it takes longer.
void tryFor(unsigned milliseconds, kj::Function<void()> what) {
  pid_t child = fork();
  if (child == 0) {
    what();
    _exit(0);
  }
  for (unsigned waited = 0; child > 0 && waited < milliseconds; waited += STEP_MILLISECONDS) {
    if (waitpid(child, nullptr, WNOHANG) != 0) return;
    sleepMilliseconds(STEP_MILLISECONDS);
  }
}

bool anythingRuns() {
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return false;
  bool found = false;
  while (auto* entry = readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    found = found || isToBeEnded(readSmallFile(kj::str("/proc/", entry->d_name, "/stat"), 4096), getpid());
  }
  closedir(proc);
  return found;
}

void endEverything() {
  kill(-1, SIGTERM);
  kill(-1, SIGCONT);
  for (unsigned waited = 0; waited < TERM_MILLISECONDS && anythingRuns(); waited += STEP_MILLISECONDS) {
    sleepMilliseconds(STEP_MILLISECONDS);
  }
  kill(-1, SIGKILL);
}

void remountReadOnly() {
  auto mounts = parseMounts(readSmallFile("/proc/self/mountinfo", size_t(1) << 20));
  for (size_t i = mounts.size(); i-- > 0;) {
    if (mounts[i].remote) {
      umount2(mounts[i].mountPoint.cStr(), MNT_DETACH);
    } else {
      mount(nullptr, mounts[i].mountPoint.cStr(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
    }
  }
}

void writeState(kj::StringPtr word) {
  kj::AutoCloseFd fd(open(POWER_STATE.cStr(), O_WRONLY | O_CLOEXEC));
  if (fd.get() >= 0 && write(fd, word.begin(), word.size()) < 0) _exit(1);
}

[[noreturn]] void carryOut(PowerAction action, kj::StringPtr suspendWord) {
  sleepMilliseconds(GOODBYE_MILLISECONDS);
  if (action == PowerAction::SUSPEND) {
    writeState(suspendWord);
    _exit(0);
  }
  tryFor(SYNC_MILLISECONDS, [] { sync(); });
  endEverything();
  tryFor(READ_ONLY_MILLISECONDS, [] {
    remountReadOnly();
    sync();
  });
  // Lower-case `reboot` leaves out sync(2), which may hang. Where a power-off does not exist, the machine halts.
  ::reboot(action == PowerAction::RESTART ? RB_AUTOBOOT : RB_POWER_OFF);
  ::reboot(RB_HALT_SYSTEM);
  _exit(1);
}

// A process of init's, that no signal meant for our kind ends; this one waits only for its parent, which ends at once.
Failure startApart(PowerAction action, kj::StringPtr suspendWord) {
  pid_t between = fork();
  if (between < 0) {
    int error = errno;
    return kj::str("cannot start a process: ", errorWords(error));
  }
  if (between == 0) {
    setsid();
    for (int number : {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2}) signal(number, SIG_IGN);
    if (chdir("/") < 0 || fork() != 0) _exit(0);
    close_range(STDERR_FILENO + 1, ~0u, 0);
    carryOut(action, suspendWord);
  }
  while (waitpid(between, nullptr, 0) < 0 && errno == EINTR) continue;
  return nullptr;
}

class SyscallPower final : public PowerWay {
 public:
  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction, Children&) override { return kj::Array<kj::String>(); }

  kj::Promise<Failure> start(PowerAction action, Children&) override {
    if (geteuid() != 0) return Failure(kj::str("only root can do that; this broker runs as user ", geteuid()));
    if (action != PowerAction::SUSPEND) return startApart(action, "");
    auto state = readSmallLine(POWER_STATE);
    KJ_IF_MAYBE (word, suspendWord(state)) return startApart(action, *word);
    return Failure(kj::str("this guest's kernel offers no suspend (", POWER_STATE, ")"));
  }
};

}  // namespace

kj::Maybe<kj::StringPtr> suspendWord(kj::StringPtr powerState) {
  for (auto word : {"mem"_kj, "freeze"_kj}) {
    for (size_t at = 0; at + word.size() <= powerState.size(); ++at) {
      bool begins = at == 0 || powerState[at - 1] == ' ';
      size_t end = at + word.size();
      bool ends = end == powerState.size() || powerState[end] == ' ' || powerState[end] == '\n';
      if (begins && ends && powerState.slice(at).startsWith(word)) return word;
    }
  }
  return nullptr;
}

bool isToBeEnded(kj::StringPtr procStat, pid_t self) {
  constexpr unsigned KERNEL_THREAD = 0x00200000;  // PF_KTHREAD
  const char* behindName = strrchr(procStat.cStr(), ')');
  int pid = 0;
  char state = 0;
  unsigned flags = 0;
  // NOLINTNEXTLINE(cert-err34-c): the kernel wrote it
  if (behindName == nullptr || sscanf(procStat.cStr(), "%d", &pid) != 1) return false;
  // NOLINTNEXTLINE(cert-err34-c): as above
  if (sscanf(behindName, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2) return false;
  return pid != 1 && pid != self && state != 'Z' && state != 'X' && (flags & KERNEL_THREAD) == 0;
}

kj::Own<PowerWay> newSyscallPower() {
  return kj::heap<SyscallPower>();
}

}  // namespace postern::guest
