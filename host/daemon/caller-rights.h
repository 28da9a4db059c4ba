#pragma once
// What one caller of the control socket may do, as it is decided, recorded for the audit, and told to him.

#include "host/control/control.capnp.h"
#include "host/daemon/daemon.h"

namespace postern::host {

// The VM, if the caller may know of it; otherwise the failure says that there is none.
kj::Maybe<Vm&> findVisible(Daemon& daemon, const LocalCaller& who, kj::StringPtr untrustedName,
                           schema::Failure::Builder failure);

// What he asks, decided and not recorded. `path`: of file calls, canonical, and of those alone. `vm` is null for admin
// calls. ANY_SERVICE is a call here.
FileDecision decide(Daemon& daemon, const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call,
                    kj::Maybe<kj::StringPtr> path);

// Whether policy lets the caller do `call`, recorded; otherwise the failure says why not, and what would allow it.
bool isAllowed(Daemon& daemon, const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call,
               kj::Maybe<kj::StringPtr> path, kj::Maybe<schema::Failure::Builder> failure);

}  // namespace postern::host
