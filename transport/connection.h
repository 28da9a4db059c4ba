#pragma once
// Connection: what connecting and accepting give: a connected descriptor, from which nothing has been read, and what
// the kernel says about its other end. A descriptor and not yet a pipe, because it may be passed, unread, to another
// process first. And the errors of getting there, as values.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <sys/types.h>

#include "protocol/hello.h"
#include "transport/close-elsewhere.h"
#include "transport/fd-pipe.h"

namespace postern {

// A hint for finding the right VM, never an authentication.
struct UnixPeer {
  uid_t uid;  // who made the socket at the other end, by SO_PEERCRED
  pid_t pid;  // 0 when it is in a namespace that we do not see
};
struct VsockPeer {
  uint32_t cid;
  uint32_t port;
};
struct UnknownPeer {};  // a serial device does not say
using PeerAddress = kj::OneOf<UnixPeer, VsockPeer, UnknownPeer>;

// As it goes into a log: "uid 1000 pid 4711", "cid 42 port 1023", "unknown".
kj::String toString(const PeerAddress& peer);

struct Connection {
  TransportKind transport;  // serial: SERIAL for the VMM's socket as well as for the device
  DescriptorKind descriptorKind;
  PeerAddress peer;
  StrangersFd fd;
};

kj::Own<BytePipe> newPipe(kj::UnixEventPort& port, Connection connection);

// One line that a person can act on: what failed, on what, what to do.
struct TransportError {
  kj::String text;
  // A Unix socket's file that is not there, or that nobody listens at any more: whoever made it has ended.
  bool nobodyListens = false;
};

using Connected = kj::OneOf<Connection, TransportError>;

template <typename... Parts>
TransportError transportError(Parts&&... parts) {
  return {kj::str(kj::fwd<Parts>(parts)...)};
}

// The C library's words for an error number.
kj::StringPtr errorWords(int error);

}  // namespace postern
