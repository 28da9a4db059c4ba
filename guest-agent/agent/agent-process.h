#pragma once
// The agent's process: started by the broker (supervisor.h) as this program with the hidden option --agent-process. It
// has these descriptors and no right of its own:
//
//   3  requests to the broker (broker/broker.h)        5  the state file
//   4  briefings, and the pulse back (briefing.h)      6  the successor's state file (identity/pairing.h)
//
// SIGTERM: says goodbye to the host, ends the session with CLOSE, and exits 0. It ends when the broker does, whatever
// the broker died of.

#include <kj/string.h>

namespace postern::guest {

constexpr kj::StringPtr AGENT_PROCESS_OPTION = "--agent-process"_kj;

constexpr int BROKER_FD = 3;
constexpr int BRIEFING_FD = 4;
constexpr int STATE_FD = 5;
constexpr int SUCCESSOR_FD = 6;

// Exit statuses. A person must do something first: starting again at once would not help.
constexpr int EXIT_NEEDS_PERSON = 78;
constexpr int EXIT_BROKER_GONE = 69;

struct AgentProcessOptions {
  kj::StringPtr stateFile;  // for errors
  int brokerPid;
};

// Its exit status.
int runAgentProcess(const AgentProcessOptions& options);

}  // namespace postern::guest
