#pragma once
// The answer of an opener to an order that needs no mover (mkdir, remove), as both ends of its socket have it: one
// Backward of protocol/transfer.capnp, `finished` or `refused`.

#include <kj/async-unix.h>
#include <kj/io.h>

#include "protocol/transfer/problem.h"

namespace postern::guest {

// Null: it was done. Waits as long as the opener takes: a large tree is not removed in a moment. Dropping the promise
// closes the socket, upon which the opener ends.
kj::Promise<kj::Maybe<transfer::Problem>> answerOfOpener(kj::AutoCloseFd socket, kj::UnixEventPort& port);

// The opener's side. Blocks.
void sendAnswer(kj::AutoCloseFd socket, const kj::Maybe<transfer::Problem>& problem);

}  // namespace postern::guest
