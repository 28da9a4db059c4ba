#pragma once
// The end of a process, ours or not: a pidfd, which no reuse of the number can confuse.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <sys/types.h>

namespace postern::host {

class ProcessWatch {
 public:
  // Of a living process; throws if there is none with this number.
  ProcessWatch(kj::UnixEventPort& port, pid_t pid);
  KJ_DISALLOW_COPY(ProcessWatch);

  // When it has ended; a child of ours is reaped then.
  kj::Promise<void> whenEnded();
  // SIGKILL.
  void kill();
  pid_t pid() const { return number; }

 private:
  const pid_t number;
  kj::AutoCloseFd fd;
  kj::UnixEventPort::FdObserver observer;
  // The descriptor tells it once; whoever asks hears it.
  kj::ForkedPromise<void> ended;
};

}  // namespace postern::host
