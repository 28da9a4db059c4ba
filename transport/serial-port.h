#pragma once
// Opening one end of a virtio-serial port. In the guest that is its character device (below /dev/virtio-ports/), which
// one process can have open; on the host it is the Unix socket of the VMM's chardev, which serves one client and lets a
// second one wait in silence until the first has left.

#include <kj/timer.h>

#include "transport/connection.h"

namespace postern {

// What `path` is decides: a socket is connected to, a character device opened; both give a Connection of transport
// SERIAL, and the peer of a device is UnknownPeer. A terminal and a device that cannot be waited on are refused.
kj::Promise<Connected> openSerial(kj::Timer& timer, kj::StringPtr path, kj::Duration timeout);

// The line for a device that cannot be opened; separate because only a guest's kernel gives most of these.
TransportError serialError(kj::StringPtr path, int error);

}  // namespace postern
