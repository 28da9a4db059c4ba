#pragma once
// What listening on and connecting to Unix sockets share.

#include <kj/io.h>
#include <kj/string.h>
#include <sys/un.h>

#include "transport/connection.h"

namespace postern {

// Stream, close-on-exec, non-blocking. Below 0, with errno, when the process or the system has none left.
kj::AutoCloseFd newUnixSocket();

// `path` fits (endpoint.h checks it); anything longer is our bug.
sockaddr_un unixAddress(kj::StringPtr path);

UnixPeer unixPeer(int socket);

}  // namespace postern
