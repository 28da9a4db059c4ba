#pragma once
// OpenerOrder: opener-order.capnp as a checked value, and its way from the broker to the standard input of an opener.

#include <kj/one-of.h>
#include <kj/string.h>

#include "guest-agent/files/file-place.h"

namespace postern::guest {

struct OpenerOrder {
  transfer::FileOrder order;
  transfer::PathScope scope;
  kj::String root;  // canonical; order.path is it or lies below it
  kj::String user;
};

// A scope has at most transfer::MAX_SCOPE_BYTES of globs and MAX_SCOPE_RULES rules.
constexpr size_t MAX_OPENER_ORDER_BYTES = size_t(4) << 20;

// Any bytes, as a child's input wants them.
kj::String openerOrderBytes(const transfer::FileOrder& order, const FilePlace& place, kj::StringPtr user);
// Or what is wrong with them, a line for the log.
kj::OneOf<OpenerOrder, kj::String> parseOpenerOrder(kj::ArrayPtr<const kj::byte> bytes);

}  // namespace postern::guest
