#pragma once
// Connecting to an endpoint: every way has a deadline, fails with one line that says what to do, and is cancelled by
// dropping the promise. One attempt; when to make the next is the caller's matter (backoff.h).

#include <kj/async-unix.h>
#include <kj/timer.h>

#include "protocol/limits.h"
#include "protocol/random.h"
#include "transport/connection.h"
#include "transport/endpoint.h"

namespace postern {

struct ConnectOptions {
  kj::Duration timeout = limits::CONNECT_TIMEOUT;
  // vsock: when given, from a source port below 1024 if the kernel allows it (see admission.h), chosen by this.
  kj::Maybe<Random&> privilegedSource;
};

// unix:   as it says.
// hybrid: host to guest: connects to the VMM's socket and asks for the port (hybrid.h).
// serial: see serial-port.h.
// vsock:  not to `any`.
// libvirt: is refused.
// `port` and `timer` outlive the promise; the rest is copied.
kj::Promise<Connected> connectTo(kj::UnixEventPort& port, kj::Timer& timer, const Endpoint& endpoint,
                                 ConnectOptions options = {});

// To a Unix socket's file, whatever speaks behind it. A full listen queue is waited for until the deadline.
kj::Promise<Connected> connectUnix(kj::Timer& timer, TransportKind transport, kj::StringPtr path, kj::Duration timeout);

}  // namespace postern
