#pragma once
// AgentChild: the agent's process, as the broker starts it and sees it end. By pidfd, so that SIGCHLD stays free for
// others (broker/broker.h). Destroying it kills the process.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/string.h>
#include <sys/types.h>

#include "guest-agent/agent/run-as.h"

namespace postern::guest {

// In the order of their numbers there (agent-process.h).
struct AgentDescriptors {
  kj::AutoCloseFd broker;
  kj::AutoCloseFd briefing;
  kj::AutoCloseFd state;
  kj::AutoCloseFd successor;
};

class AgentChild {
 public:
  // `stateFile` goes on its command line, for errors. Throws if no process can be made.
  AgentChild(kj::UnixEventPort& port, AgentDescriptors descriptors, const RunAs& runAs, kj::StringPtr stateFile);
  ~AgentChild() noexcept(false);
  KJ_DISALLOW_COPY(AgentChild);

  pid_t pid() const { return process; }
  // Its exit status, or 128 and the signal that ended it. Once.
  kj::Promise<int> onEnd();
  void signal(int number);

 private:
  pid_t process;
  kj::AutoCloseFd pidfd;
  kj::UnixEventPort::FdObserver observer;
  bool ended = false;

  int reap();
};

}  // namespace postern::guest
