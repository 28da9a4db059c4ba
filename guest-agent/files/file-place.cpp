#include "guest-agent/files/file-place.h"

#include <capnp/message.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <string.h>

#include "protocol/policy/path-glob.h"

namespace postern::guest {

namespace {

using transfer::FileCall;

bool goesInto(FileCall call) {
  return call == FileCall::GET || call == FileCall::PUT || call == FileCall::LIST;
}

// The components of a canonical path, each with its slash; none of "/".
kj::Vector<kj::String> components(kj::StringPtr path) {
  kj::Vector<kj::String> result;
  for (size_t at = 0; path.size() > 1 && at < path.size();) {
    size_t end = at + 1 + strcspn(path.cStr() + at + 1, "/");
    result.add(kj::heapString(path.slice(at, end)));
    at = end;
  }
  return result;
}

bool matches(kj::StringPtr globComponent, kj::StringPtr pathComponent) {
  auto glob = policy::PathGlob::parse(globComponent);
  return glob.is<policy::PathGlob>() && glob.get<policy::PathGlob>().matches(pathComponent);
}

// The first rule that may allow what the path holds, from a folder that the path is in.
kj::Maybe<FilePlace> placeInside(transfer::PathScope& scope, kj::StringPtr path) {
  capnp::MallocMessageBuilder message;
  auto written = message.initRoot<schema::PathScope>();
  scope.write(written);
  for (auto rule : written.asReader().getRules()) {
    if (rule.getDenies()) continue;
    for (auto text : rule.getPaths()) {
      auto glob = policy::PathGlob::parse(text);
      auto folder = kj::heapString(glob.get<policy::PathGlob>().folder());
      if (!isWithin(folder, path) || !mayMatchIn(path, text)) continue;
      auto runAs = kj::str(rule.getRunAs());
      scope.keepRunAs(runAs);
      return FilePlace{kj::mv(scope), kj::mv(folder), kj::mv(runAs)};
    }
  }
  return nullptr;
}

}  // namespace

bool isWithin(kj::StringPtr folder, kj::StringPtr path) {
  if (folder.size() == 1 || folder == path) return true;
  return path.startsWith(folder) && path[folder.size()] == '/';
}

bool mayMatchIn(kj::StringPtr path, kj::StringPtr glob) {
  auto patterns = components(glob);
  auto names = components(path);
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (patterns[i] == "/**") return true;
    if (i == names.size()) return i + 1 == patterns.size();
    if (!matches(patterns[i], names[i])) return false;
  }
  return false;
}

// T74
kj::Maybe<FilePlace> placeOf(transfer::PathScope scope, const transfer::FileOrder& order) {
  auto verdict = scope.decide(order.path);
  if (verdict.allowed) {
    auto runAs = kj::str(verdict.runAs);
    auto root = KJ_ASSERT_NONNULL(scope.rootFor(order.path));
    scope.keepRunAs(runAs);
    return FilePlace{kj::mv(scope), kj::mv(root), kj::mv(runAs)};
  }
  if (verdict.rule.size() > 0 || !goesInto(order.call)) return nullptr;
  return placeInside(scope, order.path);
}

}  // namespace postern::guest
