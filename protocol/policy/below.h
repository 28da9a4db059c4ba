#pragma once
// What a policy allows below a path.

#include "protocol/policy/policy.h"

namespace postern::policy {

// Whether a rule allows the call for any path below the request's, which is canonical, whatever it says of that path
// itself. A [[deny]] of all that lies there is not looked for: who goes there asks again for each path.
bool allowsBelow(const Policy& policy, const Request& request);

}  // namespace postern::policy
