#pragma once
// The sandbox of postern-session: entered before it reads the first byte of a guest, never left.
//
// After it the process can: compute, in threads too, read and write the descriptors that it has, take more through its
// sockets, shorten, lengthen and sync files among them, accept on the one it was given, and end. It cannot: open, make
// or look at a file, make a socket or connect one, start a program or a process, signal or trace another, gain
// privileges, or leave a core dump. A system call that is not on the list ends the process; its posternd starts
// another.
//
//  - seccomp: an allow-list of system calls (kill on violation); no executable memory
//  - Landlock: no right to any file, where the kernel has it
//  - no_new_privs, not dumpable, limits on descriptors and memory

#include "transport/sandbox.h"

namespace postern::host {

// Throws if any part other than Landlock cannot be had: without a sandbox nobody speaks with a guest.
LandlockState enterSessionSandbox();

}  // namespace postern::host
