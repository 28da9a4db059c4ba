#pragma once
// Connecting to a Unix socket as another user: with that user's right to it, and told to the other end as that user
// (SO_PEERCRED). For the broker.

#include <kj/async-unix.h>
#include <kj/one-of.h>

#include "guest-agent/files/opener-user.h"
#include "transport/service/local-address.h"

namespace postern::guest {

// As connectLocal(). The process is `user` only within each attempt's connect(2), which does not block.
kj::Promise<kj::OneOf<kj::AutoCloseFd, TransportError>> connectAs(kj::UnixEventPort& port, const UnixAddress& address,
                                                                  const OpenerUser& user, kj::Duration deadline);

}  // namespace postern::guest
