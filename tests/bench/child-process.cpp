#include "tests/bench/child-process.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace postern::bench {

kj::String builtProgram(kj::StringPtr name) {
  char self[4096];
  ssize_t size;
  KJ_SYSCALL(size = readlink("/proc/self/exe", self, sizeof(self)));
  // BUILD/tests/bench/PROGRAM.
  auto path = kj::heapString(self, size_t(size));
  for (int i = 0; i < 3; ++i) path = kj::heapString(path.slice(0, KJ_REQUIRE_NONNULL(path.findLast('/'))));
  auto program = kj::str(path, '/', name);
  KJ_REQUIRE(access(program.cStr(), X_OK) == 0, "not built", program);
  return program;
}

ChildProcess::ChildProcess(kj::ArrayPtr<const kj::StringPtr> command, kj::StringPtr log) {
  kj::Vector<char*> arguments(command.size() + 1);
  for (auto& word : command) arguments.add(const_cast<char*>(word.cStr()));
  arguments.add(nullptr);
  KJ_SYSCALL(child = fork());
  if (child != 0) return;

  prctl(PR_SET_PDEATHSIG, SIGINT);
  int out = open(log.cStr(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (out >= 0) {
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(arguments[0], arguments.begin());
  _exit(127);
}

ChildProcess::~ChildProcess() noexcept(false) {
  if (child > 0) end(SIGKILL);
}

int ChildProcess::end(int signal) {
  kill(child, signal);
  return wait();
}

int ChildProcess::wait() {
  int status;
  KJ_SYSCALL(waitpid(child, &status, 0));
  child = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace postern::bench
