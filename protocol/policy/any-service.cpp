#include "protocol/policy/any-service.h"

#include "protocol/policy/index.h"

namespace postern::policy {

namespace {

enum class Cover { NONE, SOME, ALL };

Cover coverOfServices(const Rule& rule) {
  auto cover = Cover::NONE;
  for (auto& call : rule.calls) {
    if (call.kind == CallPattern::Kind::EVERY) return Cover::ALL;
    if (call.family != CallFamily::SERVICE) continue;
    if (call.kind == CallPattern::Kind::FAMILY) return Cover::ALL;
    cover = Cover::SOME;
  }
  return cover;
}

// What is denied to any name, whatever the rules say.
bool isRuledOut(const Policy& policy, const Caller& caller, const Target& target) {
  auto callerVm = caller.tryGet<Vm>(), targetVm = target.tryGet<Vm>();
  auto isBlocked = [&](const kj::Maybe<const Vm&>& vm) {
    KJ_IF_MAYBE (v, vm) {
      KJ_IF_MAYBE (port, policy.port(v->name)) return port->blocked;
    }
    return false;
  };
  if (isBlocked(callerVm) || isBlocked(targetVm)) return true;
  bool isGuest = policy.document().side == Side::GUEST;
  if (callerVm == nullptr || targetVm == nullptr) return targetVm == nullptr && (callerVm == nullptr || isGuest);
  return !isGuest && (!policy.document().vmToVm || isSameVm(caller, target));
}

}  // namespace

bool mayGrantService(const Policy& policy, const Caller& caller, const Target& target, kj::Date now) {
  if (isRuledOut(policy, caller, target)) return false;
  auto clauses = policy.index().allClauses();
  ClauseSet matching(clauses.size());
  policy.index().matchParties(caller, target, matching);
  int64_t seconds = (now - kj::UNIX_EPOCH) / kj::SECONDS;
  bool granted = false;
  for (size_t i = 0; i < matching.wordCount(); ++i) {
    for (uint64_t left = matching.word(i); left != 0; left &= left - 1) {
      auto& clause = clauses[i * 64 + size_t(__builtin_ctzll(left))];
      if (seconds >= clause.rule->expires.orDefault(INT64_MAX)) continue;
      auto cover = coverOfServices(*clause.rule);
      if (clause.isDeny && cover == Cover::ALL) return false;
      granted |= !clause.isDeny && cover != Cover::NONE;
    }
  }
  return granted;
}

}  // namespace postern::policy
