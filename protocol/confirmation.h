#pragma once
// CONFIRM and ACCEPT as bytes (session.capnp). Both parsers take what has decrypted: authentic, but possibly nonsense.

#include <kj/array.h>

#include "protocol/establish.h"

namespace postern {

// Whole words; small enough for limits::MAX_HANDSHAKE_BODY_BYTES. The caller wipes what has a link secret in it.
kj::Array<kj::byte> encodeConfirmation(const Confirmation& confirmation);
kj::Array<kj::byte> encodeAcceptance(const Acceptance& acceptance);

// Null for bytes that are no such message, or name another version. `untrusted` is 8-byte aligned.
kj::Maybe<Confirmation> parseConfirmation(kj::ArrayPtr<const kj::byte> untrusted);
kj::Maybe<Acceptance> parseAcceptance(kj::ArrayPtr<const kj::byte> untrusted);

}  // namespace postern
