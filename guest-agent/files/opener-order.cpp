#include "guest-agent/files/opener-order.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <string.h>

#include "guest-agent/files/opener-order.capnp.h"
#include "protocol/policy/path-glob.h"

namespace postern::guest {

namespace {

kj::OneOf<OpenerOrder, kj::String> parse(wire::OpenerOrder::Reader in) {
  auto order = transfer::parseFileOrder(in.getOrder());
  KJ_IF_MAYBE (rule, order.tryGet<kj::StringPtr>()) return kj::str(*rule);
  auto scope = transfer::PathScope::parse(in.getScope());
  KJ_IF_MAYBE (wrong, scope.tryGet<kj::String>()) return kj::mv(*wrong);
  auto root = in.getRoot().asChars();
  if (!policy::isCanonicalPath(root)) return kj::str("the root is no canonical path");
  OpenerOrder result{kj::mv(order.get<transfer::FileOrder>()), kj::mv(scope.get<transfer::PathScope>()),
                     kj::heapString(root), kj::str(in.getUser())};
  if (!isWithin(result.root, result.order.path)) return kj::str("the path is not below the root");
  return kj::mv(result);
}

}  // namespace

kj::String openerOrderBytes(const transfer::FileOrder& order, const FilePlace& place, kj::StringPtr user) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<wire::OpenerOrder>();
  transfer::write(order, out.initOrder());
  place.scope.write(out.initScope());
  out.setRoot(place.root.asBytes());
  out.setUser(user);
  auto words = capnp::messageToFlatArray(message);
  KJ_ASSERT(words.asBytes().size() <= MAX_OPENER_ORDER_BYTES);
  return kj::heapString(words.asChars());
}

kj::OneOf<OpenerOrder, kj::String> parseOpenerOrder(kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes.size() > MAX_OPENER_ORDER_BYTES || bytes.size() % sizeof(capnp::word) != 0) {
    return kj::str("an order of ", bytes.size(), " bytes");
  }
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  memcpy(static_cast<void*>(words.begin()), bytes.begin(), bytes.size());
  kj::OneOf<OpenerOrder, kj::String> result;
  auto failure = kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader message(words);
    result = parse(message.getRoot<wire::OpenerOrder>());
  });
  KJ_IF_MAYBE (exception, failure) return kj::str(exception->getDescription());
  return result;
}

}  // namespace postern::guest
