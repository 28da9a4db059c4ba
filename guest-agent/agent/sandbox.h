#pragma once
// The agent's sandbox, entered before it reads the first byte of a link. What it can do afterwards: read, write and
// wait on the descriptors it has, get more from the broker over their socket and from sockets where the broker listens
// for it, map memory, read clocks, and end.
//
//   no_new_privs, no capabilities, not dumpable (no core, no ptrace by others of its user)
//   rlimits: no core, no more descriptors than transfers and channels need. None on the size of files: what it can
//   write to is its state file and what the
//     broker's openers passed, and those may be as large as a copied file is
//   Landlock, where the kernel has it: no file may be opened, made or removed, whatever its permissions
//   seccomp: an allow-list; everything else kills the process. Not on it: opening files, making sockets, connecting,
//     executing, forking, tracing, signals to others, mounts, memory that can be executed
//   threads can be made, for the files of transfers (transport/transfer/mover.h): they are in the same sandbox
//
// Needs no right and cannot be undone. What has to be opened is opened before.

#include "transport/sandbox.h"

namespace postern::guest {

struct SandboxReport {
  bool landlock;  // false: this kernel has none; seccomp forbids opening files in any case
};

// For a process with one thread. Throws if a part that every supported kernel has cannot be entered.
SandboxReport enterSandbox();

}  // namespace postern::guest
