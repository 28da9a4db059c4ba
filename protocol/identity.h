#pragma once
// Identities as they lie in a StateFile: GuestIdentity and HostIdentity (credentials.h) with the session counter.
// Keys are decoded into locked memory (locked.h); the bytes in between are wiped.

#include <kj/array.h>
#include <kj/memory.h>
#include <kj/one-of.h>

#include "protocol/credentials.h"

namespace postern {

struct GuestState {
  GuestIdentity identity;
  uint64_t sessionCounter;
};
struct HostState {
  HostIdentity identity;
  uint64_t sessionCounter;
};

enum class IdentityError {
  MALFORMED,     // not such a state at all, or a key of a wrong length or of zeros
  NEWER_FORMAT,  // written by a later version, which this one must not overwrite
};
kj::StringPtr describe(IdentityError error);

// The caller wipes the result.
kj::Array<kj::byte> encodeState(const GuestState& state);
kj::Array<kj::byte> encodeState(const HostState& state);

kj::OneOf<kj::Own<GuestState>, IdentityError> decodeGuestState(kj::ArrayPtr<const kj::byte> stored);
kj::OneOf<kj::Own<HostState>, IdentityError> decodeHostState(kj::ArrayPtr<const kj::byte> stored);

}  // namespace postern
