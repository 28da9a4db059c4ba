#pragma once
// LocalAddress: where a program of this machine listens, or is to be listened for: "tcp:127.0.0.1:80", "tcp:[::1]:80",
// "tcp:localhost:80" (127.0.0.1), "unix:/run/app.sock". Numbers only, no names are looked up; a Unix path is absolute
// and fits sun_path; "unix:@NAME" is of the abstract namespace.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/timer.h>

#include "transport/connection.h"

namespace postern {

struct TcpAddress {
  bool isSix;
  kj::byte address[16];  // the first 4 of them, or all
  uint16_t port;         // 0 where it is listened on: any
};
struct UnixAddress {
  kj::String path;  // or "@NAME"
};
using LocalAddress = kj::OneOf<TcpAddress, UnixAddress>;

// A line for a person that says what is wrong and what to write, without the name of the key.
struct LocalAddressError {
  kj::String text;
};
kj::OneOf<LocalAddress, LocalAddressError> parseLocalAddress(kj::StringPtr untrusted);
kj::String KJ_STRINGIFY(const LocalAddress& address);  // as it is written

// A stream socket, not blocking, close-on-exec, TCP_NODELAY; or why there is none, in few words and without the
// address, such as "connection refused". Resolves within `deadline`.
kj::Promise<kj::OneOf<kj::AutoCloseFd, TransportError>> connectLocal(kj::UnixEventPort& port,
                                                                     const LocalAddress& address,
                                                                     kj::Duration deadline);

// A listening socket, not blocking, close-on-exec. A Unix socket gets `mode`; one that nobody listens on any more is
// replaced, and one that is in use is not. The file stays when the socket is closed: removeLocal(), which is for then,
// takes it away, unless another listens there by now.
kj::OneOf<kj::AutoCloseFd, TransportError> listenLocal(const LocalAddress& address, mode_t mode);
void removeLocal(const LocalAddress& address);

}  // namespace postern
