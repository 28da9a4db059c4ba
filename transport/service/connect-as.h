#pragma once
// Connecting to a service as another user: to a Unix socket with that user's right to it, and told to the other end as
// that user (SO_PEERCRED). To TCP it makes no difference.

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/one-of.h>

#include "transport/children/children.h"
#include "transport/service/local-address.h"

namespace postern {

// A user of this machine, with the supplementary groups that a login of his would have.
struct ServiceUser {
  Identity identity;
  kj::Array<gid_t> groups;
};

// As connectLocal(). The process is `user` only within each attempt's connect(2), which does not block.
kj::Promise<kj::OneOf<kj::AutoCloseFd, TransportError>> connectLocalAs(kj::UnixEventPort& port,
                                                                       const LocalAddress& address,
                                                                       const kj::Maybe<ServiceUser>& user,
                                                                       kj::Duration deadline);

}  // namespace postern
