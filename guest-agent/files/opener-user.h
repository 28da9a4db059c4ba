#pragma once
// Whom a process that opens files runs as: the user whom the policy's rule names, or, where it names none, the agent's
// own unprivileged user; root only where "root" is written. A broker that is not root can be nobody but itself.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "guest-agent/agent/run-as.h"
#include "transport/children/children.h"

namespace postern::guest {

struct OpenerUser {
  kj::String name;               // for people
  kj::Maybe<Identity> identity;  // null: as this process
  kj::Array<gid_t> groups;       // supplementary ones, as a login of the user would have them
};

// Or a line for a person. `runAs` is the rule's, or empty; `agent` is whom the agent's process runs as. Asks the user
// database.
kj::OneOf<OpenerUser, kj::String> findOpenerUser(kj::StringPtr runAs, const RunAs& agent);

}  // namespace postern::guest
