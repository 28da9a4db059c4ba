#pragma once
// FilePlace: what the guest's policy says of an order about files: within which scope, as whom, and below which folder
// it is carried out. The agent asks for it, to refuse early; the broker asks again, and starts an opener by it.

#include <kj/string.h>

#include "protocol/transfer/file-order.h"
#include "protocol/transfer/path-scope.h"

namespace postern::guest {

struct FilePlace {
  transfer::PathScope scope;  // of what it allows: what the rules with this run-as allow
  kj::String root;            // canonical; the order's path is it or lies below it
  kj::String runAs;           // a user of this guest; empty: the policy names none
};

// Null if `scope` leaves the order nothing to do. Of an order whose own path no rule allows, get, put and list have a
// place all the same if a rule may allow what the path holds, and its folder holds the path: with "/srv/www/**" one may
// put into /srv/www, which that pattern does not match. What is in such a place is decided entry by entry, by the
// opener. A path that a [[deny]] names has none.
kj::Maybe<FilePlace> placeOf(transfer::PathScope scope, const transfer::FileOrder& order);

// Whether `path` is the folder or lies below it; both are canonical.
bool isWithin(kj::StringPtr folder, kj::StringPtr path);
// Whether the pattern may match something that the directory `path` holds: one component more than it.
bool mayMatchIn(kj::StringPtr path, kj::StringPtr glob);

}  // namespace postern::guest
