#include "host/daemon/process-watch.h"

#include <kj/debug.h>
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
    : number(pid),
      fd(openPidfd(pid)),
      observer(port, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      ended(observer.whenBecomesReadable()
                .then([pid]() {
                  int status;
                  (void)waitpid(pid, &status, WNOHANG);  // fails for one that is not our child
                })
                .fork()) {}

kj::Promise<void> ProcessWatch::whenEnded() {
  return ended.addBranch();
}

void ProcessWatch::kill() {
  (void)syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0);
}

}  // namespace postern::host
