#include "guest-agent/files/opener-start.h"

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/files/opener-order.h"

namespace postern::guest {

ChildDescription openerChild(kj::ArrayPtr<const kj::String> command, const transfer::FileOrder& order,
                             const OpenerPlan& plan, kj::AutoCloseFd socket) {
  auto argv = KJ_MAP(part, command) {
    return kj::str(part);
  };
  ChildDescription child{kj::mv(argv), kj::arr(kj::str(CHILD_PATH), kj::str("LC_ALL=C")), plan.user.identity,
                         openerOrderBytes(order, plan.place, plan.user.name), nullptr};
  child.groups = kj::heapArray(plan.user.groups.asPtr());
  child.socket = kj::mv(socket);
  // Nothing is removed or made for a caller who has gone, and there is nothing to be kept.
  if (transfer::hasChannel(order.call)) child.grace = OPENER_GRACE;
  return child;
}

}  // namespace postern::guest
