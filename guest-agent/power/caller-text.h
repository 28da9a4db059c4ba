#pragma once
// The caller whom the host vouches for, as the one line in which the agent names him to the broker: "user:alice",
// "uid:1000" (a uid without a name on the host) or "vm:web1", followed by a user's groups: "user:alice/group:ops". No
// name of any kind holds a slash or a colon, so that the line cannot be read in two ways.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/guest.capnp.h"

namespace postern::guest {

constexpr size_t MAX_CALLER_NAME_BYTES = 128;
constexpr size_t MAX_CALLER_GROUPS = 64;
// "user:" and the name, and "/group:" and a name for each group.
constexpr size_t MAX_CALLER_TEXT_BYTES = (MAX_CALLER_GROUPS + 1) * (MAX_CALLER_NAME_BYTES + 8);

struct VouchedUser {
  kj::String name;  // empty: `uid` has no name there
  uint32_t uid;     // 0 when there is a name
  kj::Array<kj::String> groups;
};
struct VouchedVm {
  kj::String name;
};
using VouchedCaller = kj::OneOf<VouchedUser, VouchedVm>;

// Null if a name is empty, too long, or holds a slash, a colon, a control character or bytes that are no UTF-8, or if
// there are too many groups.
kj::Maybe<kj::String> callerText(schema::Caller::Reader untrusted);

// The same, from the line: for the broker, to which the agent is not trusted.
kj::Maybe<VouchedCaller> parseCallerText(kj::StringPtr untrusted);

}  // namespace postern::guest
