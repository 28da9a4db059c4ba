#pragma once
// ChildProcess: a program that a measurement starts and ends, with its output in a file.

#include <kj/array.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::bench {

// Where a program of this build lies; `name` is its path below the build's folder, such as "host/posternd".
kj::String builtProgram(kj::StringPtr name);

class ChildProcess {
 public:
  // Gets SIGINT when this process ends, whatever ends that: posternd takes its sessions along then. Output goes to the
  // end of `log`.
  ChildProcess(kj::ArrayPtr<const kj::StringPtr> command, kj::StringPtr log);
  // SIGKILL, if it still runs.
  ~ChildProcess() noexcept(false);
  KJ_DISALLOW_COPY(ChildProcess);

  pid_t pid() const { return child; }
  // Sends the signal and waits for the end. The exit status; -1 if a signal ended it.
  int end(int signal);
  // Waits for it to end by itself.
  int wait();

 private:
  pid_t child;
};

}  // namespace postern::bench
