#pragma once
// What `postern enroll DOMAIN --libvirt` has done to a domain, with the rights of whoever calls it. Both print lines
// "KEY VALUE" for postern to read.

#include "host/libvirt/helper/libvirt.h"

namespace postern::libvirt {

// "uuid UUID" and, where the domain has only a vsock, "guest-transport vsock:host:PORT". Changes nothing.
kj::String inspect(const Libvirt& libvirt, kj::StringPtr domain);

// Adds the channel if the domain has no way in, at once where QEMU takes it, and names the bundle's file for the next
// start. A "did" line for each thing, and "restart REASON" if it does not suffice as it runs.
kj::String prepare(const Libvirt& libvirt, kj::StringPtr domain, kj::StringPtr bundleFile);

}  // namespace postern::libvirt
