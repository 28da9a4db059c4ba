#pragma once
// Where the host is, in this order: --connect; the settings' `connect`; what a bundle says, or the one that this guest
// enrolled with said; and else what there is, the virtio-serial port or vsock (broker/auto-endpoint.h).

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include "guest-agent/identity/bundle-search.h"
#include "guest-agent/paths.h"
#include "guest-agent/settings/settings.h"

namespace postern::guest {

// A bundle is made by the host's administrator, who shall not choose among this guest's devices and sockets: of what it
// says, vsock and virtio-serial ports count, and the rest is logged. Null: nothing.
kj::Maybe<Endpoint> bundleEndpoint(const Paths& paths, kj::StringPtr transport);

// Null: there is neither a port nor vsock; hostMissing() is the line for it.
kj::Maybe<Endpoint> findHost(const Paths& paths, const kj::Maybe<Endpoint>& given, const Settings& settings,
                             kj::ArrayPtr<const FoundBundle> bundles);
kj::String hostMissing(const Paths& paths);

}  // namespace postern::guest
