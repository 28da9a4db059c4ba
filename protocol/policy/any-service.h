#pragma once
// Whether a policy has services for somebody at all, before any of them has been named.

#include "protocol/policy/policy.h"

namespace postern::policy {

// False: decide() denies the caller every service.* of the target. True: a rule grants some, so that he may be told
// names, each of which is then decided by itself: a name's own [[deny]] is not looked for. About as cheap as one
// decide().
bool mayGrantService(const Policy& policy, const Caller& caller, const Target& target, kj::Date now);

}  // namespace postern::policy
