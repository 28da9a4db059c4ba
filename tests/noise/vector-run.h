#pragma once
// One test vector through both sides of the engine: every handshake message written and read, the handshake hash, the
// static keys that were transmitted, the session's keys, and every transport message.

#include <kj/common.h>
#include <kj/string.h>

#include "protocol/noise/handshake-state.h"
#include "vectors.capnp.h"

namespace postern::noise {

struct Protocol {
  Pattern pattern;
  HashKind hash;
};

// "Noise_KK_25519_ChaChaPoly_BLAKE2b". A text when the name is of a family that is not built: why.
kj::OneOf<Protocol, kj::StringPtr> parseProtocol(kj::StringPtr name);

// Throws when the engine's bytes are not the vector's, saying where.
void runVector(const Protocol& protocol, vectors::Vector::Reader vector);

}  // namespace postern::noise
