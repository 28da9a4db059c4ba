#pragma once
// What a policy says about numbers, as a session process gets it (session-control.capnp, Limit): of rules and of ports.
// A bound of 0 is a bound.

#include "host/session/session-control.capnp.h"
#include "protocol/policy/policy.h"

namespace postern::host {

// `rule` is empty for a port's.
void writeLimit(const policy::Limits& from, kj::StringPtr rule, schema::Limit::Builder to);
// Of the VM's port; nothing is written where the policy has no limits for it.
void writePortLimit(const policy::Policy& policy, kj::StringPtr vm, schema::Limit::Builder to);

kj::Maybe<const policy::Rule&> findRule(const policy::Policy& policy, kj::StringPtr id);

}  // namespace postern::host
