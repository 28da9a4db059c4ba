#pragma once
// vsock: listening and connecting on AF_VSOCK. The peer's CID comes from the hypervisor and is true on the host; a port
// proves nothing. Every connected socket breaks at a snapshot, a restore and a migration; listeners survive.

#include <kj/async-unix.h>
#include <kj/timer.h>

#include "protocol/random.h"
#include "transport/listener.h"

namespace postern {

// What a connection's socket may hold of received bytes: as much as the largest window of a bulk channel
// (limits::BULK_WINDOW_MAX), so that vsock's own credit is not the narrow place. Set after accept, so that connections
// in the queue hold no more than the kernel's default of 256 KiB.
constexpr uint64_t VSOCK_BUFFER_BYTES = uint64_t(1) << 20;

// Source ports for which a guest's kernel asks CAP_NET_BIND_SERVICE, and of which we take the upper half.
constexpr uint32_t PRIVILEGED_PORT_FIRST = 512;
constexpr uint32_t PRIVILEGED_PORT_LAST = 1023;

Listening listenVsock(kj::UnixEventPort& port, kj::Timer& timer, const VsockEndpoint& endpoint);

struct VsockConnectOptions {
  kj::Duration timeout;
  // When given: from a free port in the range above, the search beginning at a random one, since a port that the other
  // end still believes connected leads nowhere; from any port when the kernel forbids that.
  kj::Maybe<Random&> privilegedSource;
};
kj::Promise<Connected> connectVsock(kj::UnixEventPort& port, kj::Timer& timer, const VsockEndpoint& endpoint,
                                    VsockConnectOptions options);

// The line for an error of socket(), connect() or the connection's SO_ERROR, and for bind(). Separate because no test
// outside a guest may open such a socket.
TransportError vsockConnectError(const VsockEndpoint& endpoint, int error);
TransportError vsockListenError(const VsockEndpoint& endpoint, int error);

}  // namespace postern
