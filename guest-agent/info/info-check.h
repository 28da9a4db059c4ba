#pragma once
// The look at what a probe's process delivered, before it goes to the host: bytes become a message of which every text
// and list is bounded and every text is printable UTF-8. A probe is unprivileged, and reads what hostile users of the
// guest may have made.

#include <capnp/message.h>
#include <kj/array.h>

#include "guest-agent/broker/broker-client.h"
#include "protocol/guest.capnp.h"

namespace postern::guest {

// A new message with schema::Info as its root, of which that part's value alone is set. Null if the bytes are no
// message, or hold no value of that part.
kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> checkInfo(Probe part, kj::ArrayPtr<const kj::byte> untrusted);

}  // namespace postern::guest
