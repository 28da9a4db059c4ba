#pragma once
// Whether anything of a killed process group still runs.

#include <sys/types.h>

namespace postern {

// True if a member of the group is not yet dead. A member that is dead and waits for a parent that does not look
// (a minimal init) does not count. Asks /proc only when the kernel still knows the group.
bool groupRuns(pid_t group);

}  // namespace postern
