#pragma once
// LimitsInUse: the numbers, in the policy in force, of the rules that something passes now in each VM's session, for
// SessionControl.setLimits. A rule that the policy no longer has keeps the numbers that its session knows: what passes
// it lives on only by another rule that allows it.

#include <kj/map.h>

#include "host/daemon/live-grants.h"
#include "host/session/session-control.capnp.h"
#include "protocol/policy/policy.h"

namespace postern::host {

// In one message; more rules than that keep their numbers until what passes them has ended.
constexpr size_t MAX_LIMITS_AT_ONCE = 1024;

class LimitsInUse {
 public:
  explicit LimitsInUse(const policy::Policy& policy) : policy(policy) {}

  // `vm` lives as long as this.
  void add(const GrantEntry& grant);
  void add(kj::StringPtr vm, kj::StringPtr rule);
  void write(kj::StringPtr vm, schema::SessionControl::SetLimitsParams::Builder limits) const;

 private:
  using Rules = kj::TreeMap<kj::StringPtr, const policy::Rule*>;
  const policy::Policy& policy;
  kj::HashMap<kj::StringPtr, Rules> byVm;
};

}  // namespace postern::host
