#pragma once
// The handshake of hybrid vsock (Firecracker, Cloud Hypervisor), host to guest: on a fresh connection to the VMM's
// socket, one write of `CONNECT <port>\n`; the VMM connects to that port in the guest and answers `OK <number>\n`,
// where the number is its own end's and says nothing to us. What follows is the guest's stream. A VMM that finds nobody
// at the port closes.
//
// Not a byte behind the newline is read: the answer is looked at with MSG_PEEK and only the line is taken, so that the
// descriptor can still be handed on unread.

#include <kj/async-unix.h>
#include <kj/timer.h>

#include "transport/connection.h"

namespace postern {

// "OK 4294967295\n" has 14 bytes. A line that is not over by then is not the answer of a VMM.
constexpr size_t MAX_HYBRID_REPLY_BYTES = 32;

// `connection` is connected to the VMM's socket and untouched. Done within limits::HYBRID_CONNECT_TIMEOUT. Apart from
// connectTo() for the process that was given the descriptor and may open none.
kj::Promise<Connected> requestGuestPort(kj::UnixEventPort& port, kj::Timer& timer, Connection connection,
                                        uint32_t guestPort);

}  // namespace postern
