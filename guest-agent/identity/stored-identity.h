#pragma once
// The identity that lies in the state file, for those who only look at it: who writes it is the agent (pairing.h).

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "guest-agent/paths.h"
#include "protocol/identity.h"

namespace postern::guest {

struct NoIdentity {};  // no file, or an empty one
struct IdentityTrouble {
  enum class Why : uint8_t { UNREADABLE, UNUSABLE } why;
  kj::String text;  // one line, with the path
};

kj::OneOf<kj::Own<GuestState>, NoIdentity, IdentityTrouble> readStoredIdentity(const Paths& paths);

}  // namespace postern::guest
