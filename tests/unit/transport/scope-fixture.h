#pragma once
// A PathScope out of a few globs.

#include <capnp/message.h>
#include <kj/debug.h>

#include <initializer_list>

#include "protocol/transfer/path-scope.h"

namespace postern::transfer {

// Rules "allow" and "deny".
inline PathScope scopeOf(std::initializer_list<kj::StringPtr> allowed,
                         std::initializer_list<kj::StringPtr> denied = {}) {
  capnp::MallocMessageBuilder message;
  auto scope = message.initRoot<schema::PathScope>();
  auto rules = scope.initRules(denied.size() > 0 ? 2 : 1);
  rules[0].setId("allow");
  auto paths = rules[0].initPaths(unsigned(allowed.size()));
  for (unsigned i = 0; i < allowed.size(); ++i) paths.set(i, allowed.begin()[i]);
  if (denied.size() > 0) {
    rules[1].setId("deny");
    rules[1].setDenies(true);
    paths = rules[1].initPaths(unsigned(denied.size()));
    for (unsigned i = 0; i < denied.size(); ++i) paths.set(i, denied.begin()[i]);
  }
  auto parsed = PathScope::parse(scope);
  KJ_ASSERT(parsed.is<PathScope>(), parsed.get<kj::String>());
  return kj::mv(parsed.get<PathScope>());
}

}  // namespace postern::transfer
