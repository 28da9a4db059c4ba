#pragma once
// What a process of this machine costs, as the kernel counts it.

#include <kj/common.h>
#include <stdint.h>
#include <sys/types.h>

namespace postern::bench {

// User and system time since it began, all threads, in seconds; to the nanosecond, unlike /proc/PID/stat's ticks, of
// which a session uses none in half a minute.
double cpuSecondsOf(pid_t pid);

// Pages that are its own. Null for a process that forbids to be looked into, as sessions do to all but root.
kj::Maybe<uint64_t> privateBytesOf(pid_t pid);

// Lines of /proc/PID/status: VmRSS in bytes, and how often it waited, all threads.
uint64_t residentBytesOf(pid_t pid);
uint64_t waitsOf(pid_t pid);

// The parent of a process; 0 if it has gone.
pid_t parentOf(pid_t pid);

}  // namespace postern::bench
