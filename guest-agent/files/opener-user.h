#pragma once
// Whom a process runs as that the broker starts for somebody else, to open files or to serve a connection: the user who
// is named for it, or, where none is, the agent's own unprivileged user; root only where "root" is written. A broker
// that is not root can be nobody but itself.

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

// Where the user is named, for errors: "the rule's run-as".
struct UserKey {
  kj::StringPtr holder;
  kj::StringPtr key;
};
constexpr UserKey RUN_AS_OF_RULE{"rule"_kj, "run-as"_kj};
constexpr UserKey USER_OF_SERVICE{"service"_kj, "user"_kj};

// Or a line for a person. `name` is empty if none is named; `agent` is whom the agent's process runs as. Asks the user
// database.
kj::OneOf<OpenerUser, kj::String> findOpenerUser(kj::StringPtr name, const RunAs& agent,
                                                 const UserKey& key = RUN_AS_OF_RULE);

}  // namespace postern::guest
