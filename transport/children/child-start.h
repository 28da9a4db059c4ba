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
  kj::AutoCloseFd start;   // readable once it is known whether its program runs
};

// Returns when the child is there, and does not wait for its execve(): the program's file system may not answer. A line
// that says why there is none. May be called beside other threads: between fork() and execve() the child allocates
// nothing, takes no lock and runs no handler.
kj::OneOf<StartedChild, kj::String> startChild(const ChildDescription& description);

// By `start` of a child, once it is readable or the child has ended: why its program does not run. The child ends then.
kj::Maybe<kj::String> startFailure(int start, kj::StringPtr program);

}  // namespace postern
