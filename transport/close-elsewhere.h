#pragma once
// Closing without waiting. close(2) of a descriptor that somebody else has made may take as long as he likes: a file of
// his FUSE server is flushed to it, a TCP socket lingers. So a loop closes what a stranger passed in a thread.
//
// There is one such thread at a time, while there is something to close, and it has all signals blocked. What is behind
// a close that does not end stays open until the process ends.

#include <kj/io.h>

namespace postern {

// From any thread. If there is no thread to be had the descriptor stays open.
void closeElsewhere(kj::AutoCloseFd fd);

// Whether closing it takes no time: a socket between processes of this machine.
bool closesAtOnce(int fd);

}  // namespace postern
