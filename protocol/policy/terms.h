#pragma once
// Terms: what holds for something that is allowed, in words: limits of the rule and of the VMs' ports, and a mirror.

#include "protocol/policy/policy.h"

namespace postern::policy {

// A line each. Empty for a denied request, in a guest, and for calls that no limit is kept for: all but file.* and
// service.*.
kj::Vector<kj::String> termsOf(const Policy& policy, const Request& request, const Decision& decision);

}  // namespace postern::policy
