#pragma once
// OpenerPlan: what the broker decides about an order: where it is carried out, and as whom.

#include <kj/one-of.h>

#include "guest-agent/agent/guest-policy.h"
#include "guest-agent/broker/broker-client.h"
#include "guest-agent/files/opener-user.h"

namespace postern::guest {

struct OpenerPlan {
  FilePlace place;
  OpenerUser user;
};

// By the policy that is in force, for the caller whom `callerText` names (power/caller-text.h). `agent` is whom the
// agent's process runs as.
kj::OneOf<OpenerPlan, FilesRefusal> planOpener(const GuestPolicy& policy, const RunAs& agent,
                                               const transfer::FileOrder& order, kj::StringPtr callerText);

}  // namespace postern::guest
