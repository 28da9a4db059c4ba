#pragma once
// What a session process gets with a grant for services (session-control.capnp, Grant.services): for each service.NAME
// its rule, that rule's limits, and a connection to its mirror.

#include "host/daemon/decisions.h"
#include "host/daemon/live-grants.h"
#include "host/daemon/service-terms.h"

namespace postern::host {

bool isServiceCall(kj::StringPtr call);

// By what is decided now, for those that are allowed; `entry` learns what was written.
void setServiceGrants(schema::Grant::Builder grant, GrantEntry& entry, const VmRecord& vm, const Decisions& decisions,
                      Mirrors& mirrors);

}  // namespace postern::host
