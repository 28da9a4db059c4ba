#pragma once
// Connecting to a service as another user: to a Unix socket with that user's right to it, and told to the other end as
// that user (SO_PEERCRED), as to a program that is started for it. To TCP it makes no difference.

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/one-of.h>

#include "transport/children/children.h"
#include "transport/close-elsewhere.h"
#include "transport/service/local-address.h"

namespace postern {

// A user of this machine, with the supplementary groups that a login of his would have.
struct ServiceUser {
  Identity identity;
  kj::Array<gid_t> groups;
};

// As connectLocal(). A thread of its own is `user`, for connect(2) alone; a file system that does not answer holds up
// that thread and not the loop. While 8 of them wait for such a one, no further Unix socket is connected to. No
// descriptors come by it, where the kernel can refuse them.
kj::Promise<kj::OneOf<StrangersFd, TransportError>> connectLocalAs(kj::UnixEventPort& port, const LocalAddress& address,
                                                                   const kj::Maybe<ServiceUser>& user,
                                                                   kj::Duration deadline);

// The standard input and output of a service's program, and the other end of it. Stream sockets, not blocking,
// close-on-exec; each end sees the other as `user`, null: as this process. No descriptors come out of `own`, where the
// kernel can refuse them.
struct ProgramSockets {
  StrangersFd own;
  kj::AutoCloseFd programs;
};
kj::OneOf<ProgramSockets, TransportError> newProgramSockets(const kj::Maybe<ServiceUser>& user);

}  // namespace postern
