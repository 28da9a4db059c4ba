#pragma once
// The start of one child: fork, what its description says, execve. For Children.

#include <kj/io.h>
#include <kj/one-of.h>

#include "transport/children/children.h"

namespace postern {

struct StartedChild {
  pid_t pid;  // also its group; unreaped
  kj::AutoCloseFd pidfd;
  kj::AutoCloseFd output;  // its standard output, non-blocking; null if it has `stdio`
};

// Returns once the program runs, or with a line that says why it does not; nothing of it is left then. May be called
// beside other threads: between fork() and execve() the child allocates nothing, takes no lock and runs no handler.
kj::OneOf<StartedChild, kj::String> startChild(const ChildDescription& description);

}  // namespace postern
