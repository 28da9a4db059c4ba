#pragma once
// The control socket as a service manager passes it (sd_listen_fds(3)): bound and listening before posternd starts and
// after it has ended, so that a caller who comes in between waits and is not refused. Its mode and group are the
// manager's to set, and its file is not posternd's to remove.

#include <kj/io.h>
#include <kj/one-of.h>

#include "host/files/files.h"

namespace postern::host {

// Nothing was passed: posternd makes its own (listenForCallers()).
struct NoSocketPassed {};

// Takes it from the environment, which does not have it afterwards. An error is more than one descriptor, or one that
// is not a listening Unix stream socket at `path`: callers would look elsewhere.
kj::OneOf<kj::AutoCloseFd, NoSocketPassed, FileError> takePassedSocket(kj::StringPtr path);

}  // namespace postern::host
