#pragma once
// The end of a guest that has no service manager, by system calls, in a process that nothing of the guest's outlives.
//
// What is checked beforehand, and may refuse: root and, for a suspend, that the kernel offers it. Then, off the broker:
//
//   0.5 s    for the agent's goodbye
//   sync     at most 10 s, as a dead disk would hold it up for ever
//   SIGTERM  to everything but init; SIGKILL to what is there 5 s later
//   file systems are remounted read-only, as far as they let themselves, at most 5 s; sync again
//   reboot(2)
//
// A suspend: 0.5 s, then "mem", or "freeze" where there is no "mem", into /sys/power/state.

#include <kj/array.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::guest {

// What to write for a suspend, of the file's contents ("freeze mem disk"); null: it offers none.
kj::Maybe<kj::StringPtr> suspendWord(kj::StringPtr powerState);

// From the contents of /proc/PID/stat: whether that is a living process other than init and `self`, and no kernel
// thread.
bool isToBeEnded(kj::StringPtr procStat, pid_t self);

}  // namespace postern::guest
