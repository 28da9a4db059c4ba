#pragma once
// Listener: accepts connections one at a time, when asked. What is not asked for waits, unread, in the kernel's queue.
// Guarantees:
//  - a shortage of descriptors or memory neither ends the listener nor makes it spin: it pauses for ACCEPT_PAUSE and
//    tries again, and the connections wait;
//  - a connection that failed in the queue is passed over; one that its peer closed there comes as one that has ended
//    (doorkeeper.h passes those over);
//  - on Unix sockets, a peer whose uid is neither ours, nor root's, nor the one that ListenOptions names is closed
//    unread, and counted;
//  - accepted descriptors are close-on-exec and non-blocking.
// Owned by whoever accepts; lives on its event port's loop, which outlives it.

#include <kj/async-unix.h>
#include <kj/timer.h>

#include "transport/connection.h"
#include "transport/endpoint.h"

namespace postern {

// After an accept that failed for want of descriptors or memory. Long enough to cost nothing, short beside the 3 s
// that a peer waits.
constexpr auto ACCEPT_PAUSE = 100 * kj::MILLISECONDS;

struct ListenerCounters {
  uint64_t accepted = 0;
  uint64_t foreignPeers = 0;  // closed unread because of their uid
  uint64_t pauses = 0;        // for want of descriptors or memory
};

class Listener {
 public:
  virtual ~Listener() noexcept(false) {}

  // Resolves when a connection waits, and takes none. May be spurious. One such promise at a time.
  virtual kj::Promise<void> whenPending() = 0;
  // Never blocks. Null when there was none after all, or during a pause.
  virtual kj::Maybe<Connection> tryAccept() = 0;

  // Both, for those who need nothing in between. Dropping the promise loses no connection that has not been accepted.
  kj::Promise<Connection> accept();

  virtual ListenerCounters counters() const = 0;
};

struct ListenOptions {
  // Unix sockets: also lets in this user, to whom the socket's file is then given (a VMM in a jail of its own). Needs
  // the right to do so.
  kj::Maybe<uid_t> peerUid;
};

using Listening = kj::OneOf<kj::Own<Listener>, TransportError>;

// unix:   the socket's file is made with mode 0600, before anyone can connect. A file that a dead listener left is
//         replaced; one of a living listener is an error, and so is a file that is no socket. The file goes with the
//         listener.
// hybrid: the same on `PATH_PORT`, where the VMM connects for the guest. Make it before the VM starts.
// vsock:  on one of this machine's addresses, or on all.
// serial: an error: the VMM's socket, or the device, is there to be connected to.
Listening listenOn(kj::UnixEventPort& port, kj::Timer& timer, const Endpoint& endpoint, ListenOptions options = {});

}  // namespace postern
