#pragma once
// RealAgent: a postern-agent as it is installed, in a folder of its own beside a RealHost's, enrolled as one VM over a
// Unix socket.

#include "tests/bench/real-host.h"

namespace postern::bench {

class RealAgent {
 public:
  // Enrols `vm` with a grant for this user, and starts the agent with the bundle. `host` outlives it, and answers.
  // `socket`: where the agent connects, if that is not the VM's own listener.
  // `agentToml`: its agent.toml, without which it takes the grant from the bundle.
  RealAgent(RealHost& host, kj::StringPtr vm, kj::StringPtr grant, kj::Maybe<kj::StringPtr> socket = nullptr,
            kj::Maybe<kj::StringPtr> agentToml = nullptr);
  // Ends it, broker first.
  ~RealAgent() noexcept(false);
  KJ_DISALLOW_COPY(RealAgent);

  // Until a ping comes back.
  void untilConnected(client::VmClient& vm, kj::AsyncIoContext& io);

  // Where posternd listens for a VM that was enrolled so.
  static kj::String listenerOf(const RealHost& host, kj::StringPtr vm) { return host.path(kj::str(vm, ".link")); }

  pid_t broker() const { return process->pid(); }
  // The process that speaks with the host.
  pid_t agent() const;

 private:
  kj::Own<ChildProcess> process;
  const kj::String log;
};

}  // namespace postern::bench
