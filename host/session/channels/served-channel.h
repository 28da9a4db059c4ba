#pragma once
// Another VM's channel comes to a service of this VM's guest: SessionControl.serve. posternd has decided; the guest
// decides again, for that VM, and reaches its target; then the bytes are relayed to the other VM's session. The channel
// is the book's. Within SERVED_DEADLINE.

#include "host/session/channels/passed-flow.h"
#include "host/session/hub.h"

namespace postern::host {

// From the question to the target's being reached.
constexpr auto SERVED_DEADLINE = 10 * kj::SECONDS;

using ServeContext = capnp::CallContext<schema::SessionControl::ServeParams, schema::SessionControl::ServeResults>;

// Both outlive the promise.
kj::Promise<void> serveChannel(Hub& hub, ChannelBook& book, ServeContext context);

}  // namespace postern::host
