#pragma once
// Processes of this guest, as /proc shows them to this user.

#include <kj/common.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::guest {

// Who has the file open; null: nobody, or it is not to be seen. `path` may be a symbolic link to it.
kj::Maybe<pid_t> whoHasOpen(kj::StringPtr path);
// The child of `parent` that holds the link; null: there is none.
kj::Maybe<pid_t> agentProcessOf(pid_t parent);
// Who decides what it may beside its user, and by what: "AppArmor's profile postern-agent confines it"; null: nobody
// does, or only writes down what he would refuse.
kj::Maybe<kj::String> confinementOf(pid_t pid);
// The same, of what /proc/PID/attr/current says.
kj::Maybe<kj::String> confinementBy(kj::StringPtr label, bool selinuxEnforces);
// As `ps` calls it; empty: it has ended.
kj::String processName(pid_t pid);

}  // namespace postern::guest
