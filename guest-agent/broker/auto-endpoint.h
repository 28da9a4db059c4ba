#pragma once
// "auto": which link the guest has, looked for at each connect, since a port may appear later: the virtio-serial port's
// device if there is one, else the host by vsock.

#include "guest-agent/paths.h"
#include "transport/endpoint.h"

namespace postern::guest {

// `vsockDevice` is "/dev/vsock", which is there when the kernel has vsock at all. Null: the guest has neither; then
// noEndpoint() is the line.
kj::Maybe<Endpoint> autoEndpoint(kj::StringPtr virtioPort, kj::StringPtr vsockDevice);
kj::String noEndpoint(kj::StringPtr virtioPort, kj::StringPtr vsockDevice);

}  // namespace postern::guest
