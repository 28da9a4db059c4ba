#include "guest-agent/files/opener-start.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/files/opener-order.capnp.h"

namespace postern::guest {

namespace {

kj::String orderText(const transfer::FileOrder& order, const OpenerPlan& plan) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::OpenerOrder>();
  transfer::write(order, out.initOrder());
  plan.place.scope.write(out.initScope());
  out.setRoot(plan.place.root.asBytes());
  out.setUser(plan.user.name);
  auto words = capnp::messageToFlatArray(message);
  KJ_REQUIRE(words.asBytes().size() <= MAX_OPENER_ORDER_BYTES, "the policy has too many rules about files");
  return kj::heapString(words.asChars());
}

}  // namespace

ChildDescription openerChild(kj::ArrayPtr<const kj::String> command, const transfer::FileOrder& order,
                             const OpenerPlan& plan, kj::AutoCloseFd socket) {
  auto argv = KJ_MAP(part, command) {
    return kj::str(part);
  };
  ChildDescription child{kj::mv(argv), kj::arr(kj::str(CHILD_PATH), kj::str("LC_ALL=C")), plan.user.identity,
                         orderText(order, plan), nullptr};
  child.groups = kj::heapArray(plan.user.groups.asPtr());
  child.socket = kj::mv(socket);
  child.grace = OPENER_GRACE;
  return child;
}

}  // namespace postern::guest
