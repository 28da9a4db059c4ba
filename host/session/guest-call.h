#pragma once
// A call to the guest, and what its failing says to the caller on the host.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/timer.h>

#include "host/control/control.capnp.h"

namespace postern::host {

// `call`, with a deadline. What goes wrong is written where `failure` says; it does not throw. `timer` outlives it.
kj::Promise<void> boundedCall(kj::Timer& timer, kj::Promise<void> call, kj::Duration deadline,
                              kj::Function<schema::Failure::Builder()> failure);

}  // namespace postern::host
