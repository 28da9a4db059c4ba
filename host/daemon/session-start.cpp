#include "host/daemon/session-start.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/daemon/build-id.h"
#include "host/files/files.h"
#include "host/log/log.h"
#include "transport/connection.h"

namespace postern::host {

namespace {

constexpr int SOCKET_FD = 3;
constexpr int STATE_FD = 4;
constexpr size_t MAX_PID_FILE_BYTES = 256;

// Waits for one connection at a time; nobody but this user gets in (mode 0600 in a folder of mode 0700).
kj::AutoCloseFd listenAt(kj::StringPtr path) {
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.size() < sizeof(address.sun_path), "the runtime folder's path is too long for a socket", path);
  memcpy(address.sun_path, path.begin(), path.size());
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd listening(fd);
  unlink(path.cStr());
  KJ_SYSCALL(fchmod(listening, 0600));
  KJ_SYSCALL(bind(listening, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)), path);
  KJ_SYSCALL(listen(listening, 4));
  return listening;
}

class SpawnPlan {
 public:
  SpawnPlan() {
    KJ_ASSERT(posix_spawn_file_actions_init(&actions) == 0);
    KJ_ASSERT(posix_spawnattr_init(&attributes) == 0);
    // KJ blocks the signals that it waits for; the child starts with none blocked, in a session of its own.
    sigset_t none;
    sigemptyset(&none);
    KJ_ASSERT(posix_spawnattr_setsigmask(&attributes, &none) == 0);
    KJ_ASSERT(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID) == 0);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  KJ_DISALLOW_COPY(SpawnPlan);
  // Through a number that is not in the way.
  void give(int from, int to) { KJ_ASSERT(posix_spawn_file_actions_adddup2(&actions, from, to) == 0); }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

kj::AutoCloseFd moveUp(kj::AutoCloseFd fd) {
  int moved;
  KJ_SYSCALL(moved = fcntl(fd, F_DUPFD_CLOEXEC, 10));
  return kj::AutoCloseFd(moved);
}

kj::String pidPathOf(const SessionPlace& place) {
  return kj::str(place.folder, '/', place.vmName, ".pid");
}

}  // namespace

kj::String socketPathOf(const SessionPlace& place) {
  return kj::str(place.folder, '/', place.vmName, ".sock");
}

kj::OneOf<pid_t, kj::String> startSession(kj::StringPtr program, const SessionPlace& place,
                                          kj::AutoCloseFd stateParam) {
  auto state = moveUp(kj::mv(stateParam));
  auto listening = moveUp(listenAt(socketPathOf(place)));
  SpawnPlan plan;
  plan.give(listening, SOCKET_FD);
  plan.give(state, STATE_FD);
  auto uuid = toString(place.vm);
  const char* argv[] = {program.cStr(), "--vm", place.vmName.cStr(), "--uuid", uuid.cStr(),
                        "--socket-fd",  "3",    "--state-fd",        "4",      nullptr};
  auto build = buildIdOf(program);
  pid_t pid;
  int error =
      posix_spawn(&pid, program.cStr(), &plan.actions, &plan.attributes, const_cast<char* const*>(argv), environ);
  if (error != 0) return kj::str("cannot start ", program, ": ", errorWords(error));
  KJ_IF_MAYBE (failed, replaceFile(pidPathOf(place), kj::str(pid, ' ', build), 0600, Lasting::UNTIL_REBOOT)) {
    logEvent(LogLevel::WARNING, "pid-file", failed->text, place.vmName);
  }
  return pid;
}

kj::Maybe<StartedSession> lastStartedSession(const SessionPlace& place) {
  auto read = readFile(pidPathOf(place), MAX_PID_FILE_BYTES);
  KJ_IF_MAYBE (text, read.tryGet<kj::String>()) {
    char* build;
    auto pid = static_cast<pid_t>(strtol(text->cStr(), &build, 10));
    if (*build == ' ') ++build;
    if (pid > 1 && isSessionOf(pid, place)) return StartedSession{pid, kj::str(build)};
  }
  return nullptr;
}

bool isSessionOf(pid_t pid, const SessionPlace& place) {
  auto read = readFile(kj::str("/proc/", pid, "/cmdline"), 4096);
  if (read.is<FileError>()) return false;
  auto& line = read.get<kj::String>();
  KJ_IF_MAYBE (end, line.findFirst('\0')) {
    const char zero[] = {'\0'};
    auto wanted = kj::str("--vm", kj::arrayPtr(zero, 1), place.vmName, kj::arrayPtr(zero, 1), "--uuid",
                          kj::arrayPtr(zero, 1), toString(place.vm), kj::arrayPtr(zero, 1));
    auto rest = line.slice(*end + 1);
    return rest.size() >= wanted.size() && memcmp(rest.begin(), wanted.begin(), wanted.size()) == 0;
  }
  return false;
}

}  // namespace postern::host
