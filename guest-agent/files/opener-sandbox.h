#pragma once
// The sandbox of an opener, entered before it reads the first byte of its mover, never left.
//
// After it the process can: with the rights of the user that it runs as, open, read, make, rename and remove what is
// beneath one folder; use the descriptors that it has, and pass them to its mover; read clocks; end. It cannot: open,
// make, rename or remove what is elsewhere, make a socket or connect one, start a program or a process, signal or trace
// another, mount, gain rights, or leave a core dump.
//
//   no_new_privs, not dumpable
//   capabilities: none; of root, those that make it root among files and nothing else (FILE_CAPABILITIES), and for
//   special
//     files the right to make them
//   Landlock, where the kernel has it: nothing but what is beneath the folder, and no executing there
//   seccomp: an allow-list; everything else ends the process. Opening is not confined by it: that is Landlock's part,
//   and
//     that of openat2 (transport/transfer/guest-paths.h), which follows no link, on every kernel

#include "transport/sandbox.h"

namespace postern::guest {

enum class SpecialFiles { DENIED, ALLOWED };

// For a process with one thread. Throws if a part that every supported kernel has cannot be entered.
LandlockState enterOpenerSandbox(int folder, SpecialFiles special);

}  // namespace postern::guest
