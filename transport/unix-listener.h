#pragma once
// Listening on a Unix socket's file: who may own the name, and who may connect. See listener.h for the guarantees.

#include "transport/listener.h"

namespace postern {

// `transport` is what accepted connections say they are: UNIX or HYBRID.
Listening listenUnix(kj::UnixEventPort& port, kj::Timer& timer, TransportKind transport, kj::StringPtr path,
                     ListenOptions options);

}  // namespace postern
