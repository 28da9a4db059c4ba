#include "host/daemon/limits-in-use.h"

#include "host/daemon/file-grants.h"
#include "host/daemon/policy-limits.h"

namespace postern::host {

void LimitsInUse::add(const GrantEntry& grant) {
  for (auto& service : grant.granted.services) add(grant.vm, service.rule);
  forEachRule(grant.granted.files, [&](kj::StringPtr rule) { add(grant.vm, rule); });
}

void LimitsInUse::add(kj::StringPtr vm, kj::StringPtr rule) {
  KJ_IF_MAYBE (found, findRule(policy, rule)) {
    auto& rules = byVm.findOrCreate(vm, [&]() { return kj::HashMap<kj::StringPtr, Rules>::Entry{vm, Rules()}; });
    if (rules.size() >= MAX_LIMITS_AT_ONCE) return;
    // Keyed by what belongs to the policy.
    rules.upsert(found->id, found, [](auto&, auto&&) {});
  }
}

void LimitsInUse::write(kj::StringPtr vm, schema::SessionControl::SetLimitsParams::Builder limits) const {
  writePortLimit(policy, vm, limits.initPort());
  KJ_IF_MAYBE (rules, byVm.find(vm)) {
    auto list = limits.initRules(static_cast<unsigned>(rules->size()));
    unsigned i = 0;
    for (auto& entry : *rules) writeLimit(entry.value->limits, entry.key, list[i++]);
  }
}

}  // namespace postern::host
