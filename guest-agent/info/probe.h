#pragma once
// Probes: what finds out the parts of info.*. Each runs in a process of its own, the broker's program started again
// with the hidden option `--probe NAME`, unprivileged and with a deadline, and writes what it found to standard output:
// one serialised message with schema::Info as its root, of which that part alone is set. So a probe that hangs, crashes
// or is confused by what it reads takes nothing along.

#include <kj/string.h>

#include "guest-agent/broker/broker-client.h"
#include "transport/children/children.h"

namespace postern::guest {

// As in `--probe`: "os", "network", "filesystems", "users".
kj::StringPtr probeName(Probe probe);

// The whole program behind `--probe NAME`: writes to standard output and gives the process's exit status. `name` may
// also be "inhibitors" (guest-agent/power/inhibitors.h); an unknown one is status 64.
int runProbe(kj::StringPtr name);

// The probe's process, for Children.
ChildDescription probeChild(kj::ArrayPtr<const kj::String> command, kj::StringPtr name, kj::Maybe<Identity> identity,
                            kj::Duration limit);

}  // namespace postern::guest
