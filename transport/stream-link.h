#pragma once
// StreamLink: a connection over a transport that has connections (unix, vsock, hybrid). The first frame each way is
// HELLO; after it every frame carries the link's tag. Whatever is not such a frame ends the link at once: on a stream
// nothing stale can arrive, so a foreign byte is a fault or an attack.
//
// Holds no buffer while it waits between frames. Until authenticated() it never reads more than PRE_AUTH_READ_BYTES at
// a time, so that what an unauthenticated peer can make this end keep is bounded by that.

#include <kj/async.h>
#include <kj/one-of.h>

#include "protocol/byte-pipe.h"
#include "protocol/frame-link.h"
#include "protocol/hello.h"
#include "protocol/read-scratch.h"

namespace postern {

// Sends `own` and waits for the peer's HELLO. No deadline of its own: the caller bounds the wait, by dropping the
// promise. On failure the pipe is closed. `scratch` outlives the link.
kj::Promise<kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>> openStreamLink(kj::Own<BytePipe> pipe, const Hello& own,
                                                                               ReadScratch& scratch);

}  // namespace postern
