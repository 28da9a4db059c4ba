#include "protocol/policy/below.h"

#include "protocol/policy/index.h"

namespace postern::policy {

namespace {

bool reachesBelow(const Rule& rule, kj::StringPtr path) {
  for (auto& glob : rule.paths) {
    if (glob.matchesBelow(path)) return true;
  }
  return rule.paths.empty();
}

}  // namespace

bool allowsBelow(const Policy& policy, const Request& request) {
  KJ_IF_MAYBE (path, request.path) {
    auto clauses = policy.index().allClauses();
    ClauseSet matching(clauses.size());
    policy.index().match(request, CallFamily::FILE, matching);
    int64_t now = (request.now - kj::UNIX_EPOCH) / kj::SECONDS;
    for (size_t i = 0; i < clauses.size(); ++i) {
      if (!matching.contains(i) || clauses[i].isDeny) continue;
      auto& rule = *clauses[i].rule;
      if (now < rule.expires.orDefault(INT64_MAX) && reachesBelow(rule, *path)) return true;
    }
  }
  return false;
}

}  // namespace postern::policy
