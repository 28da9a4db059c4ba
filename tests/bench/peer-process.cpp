#include "tests/bench/peer-process.h"

#include <kj/debug.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace postern::bench {

SocketPair newSocketPair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

PeerProcess::PeerProcess(size_t pairs, kj::FunctionParam<void(kj::ArrayPtr<kj::AutoCloseFd>)> run) {
  auto near = kj::heapArrayBuilder<kj::AutoCloseFd>(pairs);
  auto far = kj::heapArrayBuilder<kj::AutoCloseFd>(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    auto pair = newSocketPair();
    near.add(kj::mv(pair.near));
    far.add(kj::mv(pair.far));
  }
  auto farSockets = far.finish();
  sockets = near.finish();
  fflush(nullptr);  // or the child would print it again
  KJ_SYSCALL(child = fork());
  if (child != 0) return;

  sockets = nullptr;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { run(farSockets); })) {
    KJ_LOG(ERROR, "the far process failed", *exception);
    _exit(1);
  }
  _exit(0);
}

PeerProcess::~PeerProcess() noexcept(false) {
  if (child <= 0) return;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

void PeerProcess::finish() {
  sockets = nullptr;
  int status;
  KJ_SYSCALL(waitpid(child, &status, 0));
  child = 0;
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the far process did not end well", status);
}

}  // namespace postern::bench
