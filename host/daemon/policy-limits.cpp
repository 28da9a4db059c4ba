#include "host/daemon/policy-limits.h"

#include <algorithm>

namespace postern::host {

namespace {

// Limit.zero's bits.
enum Zero : uint16_t { RATE = 1, BURST = 2, PEAK = 4, OPEN = 8, CALLS = 16, BYTES = 32 };

}  // namespace

void writeLimit(const policy::Limits& from, kj::StringPtr rule, schema::Limit::Builder to) {
  uint16_t zero = 0;
  auto numberOf = [&zero](const kj::Maybe<uint64_t>& bound, Zero bit) -> uint64_t {
    KJ_IF_MAYBE (number, bound) {
      if (*number == 0) zero = static_cast<uint16_t>(zero | bit);
      return *number;
    }
    return 0;
  };
  to.setRule(rule);
  to.setRate(numberOf(from.rate, RATE));
  to.setBurst(numberOf(from.burst, BURST));
  to.setPeak(numberOf(from.peak, PEAK));
  to.setOpen(numberOf(from.open, OPEN));
  to.setCalls(numberOf(from.callsPerHour, CALLS));
  to.setBytes(numberOf(from.bytes, BYTES));
  to.setZero(zero);
}

void writePortLimit(const policy::Policy& policy, kj::StringPtr vm, schema::Limit::Builder to) {
  KJ_IF_MAYBE (port, policy.port(vm)) writeLimit(port->limits, "", to);
}

// A policy's rules are sorted by id.
kj::Maybe<const policy::Rule&> findRule(const policy::Policy& policy, kj::StringPtr id) {
  auto& rules = policy.document().rules;
  auto at = std::lower_bound(rules.begin(), rules.end(), id,
                             [](const policy::Rule& rule, kj::StringPtr wanted) { return rule.id < wanted; });
  if (at == rules.end() || at->id != id) return nullptr;
  return *at;
}

}  // namespace postern::host
