#include "guest-agent/agent/agent-child.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest-agent/agent/agent-process.h"

namespace postern::guest {

namespace {

constexpr int FIRST_FREE_FD = 16;
constexpr int EXIT_NOT_STARTED = 126;
// What an agent needs of the environment: where its log goes, and what sanitizers are told. Nothing that names a folder
// of secrets or a socket of the service manager.
constexpr const char* KEPT_VARIABLES[] = {"PATH", "JOURNAL_STREAM", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"};

kj::Vector<kj::String> environmentFor() {
  kj::Vector<kj::String> result;
  for (auto* name : KEPT_VARIABLES) {
    const char* value = getenv(name);
    if (value != nullptr) result.add(kj::str(name, '=', value));
  }
  return result;
}

kj::Vector<char*> pointers(kj::Vector<kj::String>& strings) {
  kj::Vector<char*> result;
  for (auto& string : strings) result.add(string.begin());
  result.add(nullptr);
  return result;
}

// In the child, between fork and exec: nothing but system calls.
[[noreturn]] void become(const int (&from)[4], const RunAs& runAs, char** argv, char** environment) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  int aside[4];
  for (int i = 0; i < 4; ++i) aside[i] = fcntl(from[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
  for (int i = 0; i < 4; ++i) {
    if (aside[i] < 0 || dup2(aside[i], BROKER_FD + i) < 0) _exit(EXIT_NOT_STARTED);
  }
  if (runAs.change) {
    // Raw calls: the C library's would wait for threads that a forked child does not have.
    if (syscall(SYS_setgroups, 0, nullptr) != 0 || syscall(SYS_setresgid, runAs.gid, runAs.gid, runAs.gid) != 0 ||
        syscall(SYS_setresuid, runAs.uid, runAs.uid, runAs.uid) != 0) {
      _exit(EXIT_NOT_STARTED);
    }
  }
  execve("/proc/self/exe", argv, environment);
  _exit(EXIT_NOT_STARTED);
}

pid_t start(const AgentDescriptors& descriptors, const RunAs& runAs, kj::StringPtr stateFile) {
  kj::Vector<kj::String> arguments;
  arguments.add(kj::str("postern-agent"));
  arguments.add(kj::str(AGENT_PROCESS_OPTION));
  arguments.add(kj::str(getpid()));
  arguments.add(kj::str("--state-file"));
  arguments.add(kj::str(stateFile));
  auto argv = pointers(arguments);
  auto variables = environmentFor();
  auto environment = pointers(variables);
  const int from[4] = {descriptors.broker, descriptors.briefing, descriptors.state, descriptors.successor};
  pid_t pid;
  KJ_SYSCALL(pid = fork());
  if (pid == 0) become(from, runAs, argv.begin(), environment.begin());
  return pid;
}

kj::AutoCloseFd openPidfd(pid_t pid) {
  int fd;
  KJ_SYSCALL(fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  return kj::AutoCloseFd(fd);
}

}  // namespace

AgentChild::AgentChild(kj::UnixEventPort& port, AgentDescriptors descriptors, const RunAs& runAs,
                       kj::StringPtr stateFile)
    : process(start(descriptors, runAs, stateFile)),
      pidfd(openPidfd(process)),
      observer(port, pidfd, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

AgentChild::~AgentChild() noexcept(false) {
  if (ended) return;
  signal(SIGKILL);
  reap();
}

kj::Promise<int> AgentChild::onEnd() {
  return observer.whenBecomesReadable().then([this]() { return reap(); });
}

void AgentChild::signal(int number) {
  if (!ended) kill(process, number);
}

int AgentChild::reap() {
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  ended = true;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace postern::guest
