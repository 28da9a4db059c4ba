#pragma once
// Control.open: decides what a caller asks of a VM, and has it introduced to the VM's session process with a grant for
// what was allowed.

#include "host/control/control.capnp.h"
#include "host/daemon/daemon.h"

namespace postern::host {

using OpenContext = capnp::CallContext<schema::Control::OpenParams, schema::Control::OpenResults>;
// `daemon` outlives the promise.
kj::Promise<void> openVm(Daemon& daemon, kj::Own<const LocalCaller> who, OpenContext context);

}  // namespace postern::host
