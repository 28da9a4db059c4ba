#pragma once
// Listening on a Unix socket's file: who may own the name, and who may connect. See listener.h for the guarantees.

#include <kj/io.h>
#include <sys/types.h>

#include "transport/listener.h"

namespace postern {

// `transport` is what accepted connections say they are: UNIX or HYBRID.
Listening listenUnix(kj::UnixEventPort& port, kj::Timer& timer, TransportKind transport, kj::StringPtr path,
                     ListenOptions options);

// The name alone, for who accepts by himself: of a dead listener it is taken over, of a living one it is not, and of
// two that ask at once one has it. The file stays when the socket is closed.
struct UnixName {
  mode_t mode;
  kj::Maybe<uid_t> owner;  // to whom the file is given
};
kj::OneOf<kj::AutoCloseFd, TransportError> listenOnName(kj::StringPtr path, const UnixName& name);
// Removes the file, unless somebody listens there or it is no socket.
void removeDeadName(kj::StringPtr path);

}  // namespace postern
