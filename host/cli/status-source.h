#pragma once
// Where `postern status` learns from: the status board, which costs nobody anything, or, where this user may not read
// it or it is stale, posternd.

#include "host/cli/invocation.h"
#include "host/cli/vm-state.h"

namespace postern::cli {

// The VMs of these names, in this order; without names all, by name. A name that is not known ends the command.
kj::Vector<VmState> readStates(Invocation& run, kj::ArrayPtr<const kj::String> names);

}  // namespace postern::cli
