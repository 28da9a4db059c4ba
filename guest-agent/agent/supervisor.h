#pragma once
// Supervisor: the broker's process, which init starts: takes the lock, reads the configuration, finds bundles, starts
// the agent and keeps it alive, and lends the agent its rights through a Broker (broker/broker.h). It never sees a byte
// of the link.
//
//   the agent died            started again at once, then after 0.1 s doubling to 1 s while it does not live 10 s
//   it needs a person         (a state file that cannot be used) every 30 s, and at a reload
//   SIGHUP                    configuration and bundles are read again; with an error the old configuration stays. The
//                             agent hears of it; it is restarted only if it has to run or to connect differently
//   SIGTERM, SIGINT           the agent says goodbye; both end. After STOP_TIME it is killed
//   killed                    the kernel ends the agent, and init starts both again
//
// Tells systemd READY, RELOADING and STOPPING, and WATCHDOG only while the agent's loop runs.

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include "guest-agent/agent/agent-child.h"
#include "guest-agent/agent/briefing.h"
#include "guest-agent/agent/settlement.h"
#include "guest-agent/broker/broker.h"

namespace postern::guest {

constexpr auto STOP_TIME = 5 * kj::SECONDS;

struct SupervisorOptions {
  kj::StringPtr root;
  kj::Maybe<kj::StringPtr> config;
  kj::Maybe<Endpoint> connect;  // null: the settings', the bundle's, or auto
  kj::Maybe<kj::StringPtr> bundleFile;
  kj::Maybe<kj::StringPtr> credentials;  // $CREDENTIALS_DIRECTORY
};

// Its exit status: 0 after SIGTERM, 1 when it cannot begin. SIGHUP, SIGTERM and SIGINT must have been captured before
// the event port was made.
int runSupervisor(const SupervisorOptions& options, kj::AsyncIoContext& io);

}  // namespace postern::guest
