#pragma once
// The start of one opener (opener-process.h), by the broker: for one order, in the place that the guest's policy gives
// it, as the user that follows from it.

#include "guest-agent/files/opener-plan.h"
#include "transport/children/children.h"

namespace postern::guest {

// `command` is {"/proc/self/exe", "--opener"}.
ChildDescription openerChild(kj::ArrayPtr<const kj::String> command, const transfer::FileOrder& order,
                             const OpenerPlan& plan, kj::AutoCloseFd socket);

}  // namespace postern::guest
