#pragma once
// The process of one VM's session: started, and found again. It listens on a socket that it is started with, below a
// folder that nobody else gets into; its number and its build are kept beside that.

#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <sys/types.h>

#include "protocol/bundle.h"

namespace postern::host {

struct SessionPlace {
  kj::StringPtr folder;
  kj::StringPtr vmName;
  const VmId& vm;
};
kj::String socketPathOf(const SessionPlace& place);

// Or a line for a person. `program`: the path of postern-session. `state`: the VM's state file.
kj::OneOf<pid_t, kj::String> startSession(kj::StringPtr program, const SessionPlace& place, kj::AutoCloseFd state);
struct StartedSession {
  pid_t pid;
  kj::String build;  // buildIdOf() the program then; empty if it is not known
};
// The process that was started last, by us or by an earlier posternd, if it still lives; null otherwise.
kj::Maybe<StartedSession> lastStartedSession(const SessionPlace& place);
// Whether it was started as startSession() does it. A process that merely has the VM's uuid in its command line, as its
// QEMU has, is not ours to end.
bool isSessionOf(pid_t pid, const SessionPlace& place);

}  // namespace postern::host
