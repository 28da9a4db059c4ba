#include "host/daemon/process-watch.h"

#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace postern::host {

namespace {

kj::AutoCloseFd openPidfd(pid_t pid) {
  int fd;
  KJ_SYSCALL(fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0)), pid);
  return kj::AutoCloseFd(fd);
}

}  // namespace

ProcessWatch::ProcessWatch(kj::UnixEventPort& port, pid_t pid)
    : number(pid), fd(openPidfd(pid)), observer(port, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

kj::Promise<void> ProcessWatch::whenEnded() {
  // The event port tells of a change once: an end that somebody has heard of, or nobody, is asked for.
  if (hasEnded()) return kj::READY_NOW;
  return observer.whenBecomesReadable().then([this]() { return whenEnded(); });
}

bool ProcessWatch::hasEnded() {
  struct pollfd ready {
    fd.get(), POLLIN, 0
  };
  if (poll(&ready, 1, 0) <= 0) return false;
  int status;
  (void)waitpid(number, &status, WNOHANG);  // fails for one that is not our child
  return true;
}

void ProcessWatch::kill() {
  (void)syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0);
}

}  // namespace postern::host
