#pragma once
// A copy between a folder of this machine and a guest, as a host's session process and a caller's program do it
// together: the mover on the loop, the opener in a thread. The outcome is a line: "copied FILES files, FAILURES
// failures", or "copy failed: WHY".

#include <kj/async-unix.h>

#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::test {

// `session` is the one that `guest` is reached by; both outlive the promise, which is not to be dropped.
kj::Promise<kj::String> putFile(kj::UnixEventPort& port, Session& session, schema::Guest::Client guest,
                                kj::StringPtr folder, kj::StringPtr name, kj::StringPtr path);
kj::Promise<kj::String> getFile(kj::UnixEventPort& port, Session& session, schema::Guest::Client guest,
                                kj::StringPtr path, kj::StringPtr folder);

}  // namespace postern::test
