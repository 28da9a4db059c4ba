#pragma once
// Explaining a verdict: every rule that has to do with a request, why it decides or why it does not. Slower than
// decide(), and found without the index, so that the two check each other in tests.

#include "protocol/policy/policy.h"

namespace postern::policy {

enum class Standing : uint8_t {
  DECIDES,        // names the verdict
  ALSO,           // matches as well; another id is smaller
  OVERRULED,      // would allow, but a deny, a blocked port or the caller's request itself stands against it
  VOID_VM_TO_VM,  // would allow, but vm-to-vm is disabled
  EXPIRED,
  // Near misses: everything matches but this.
  OTHER_CALLER,
  OTHER_TARGET,
  OTHER_CALL,
  OTHER_PATH,
};
// "matches as well".
kj::StringPtr describe(Standing standing);

struct RuleNote {
  const Rule* rule;  // of the policy
  Standing standing;

  kj::String toString() const;  // "allow 'ops' (ops.toml:7): the call is not in it"
};

struct Explanation {
  Decision decision;
  kj::Vector<RuleNote> notes;    // which decides first, then by standing, then by id
  size_t unrelated;              // rules that differ in more than one respect
  Advice advice;                 // of a denial
  kj::Vector<kj::String> terms;  // of what is allowed, a line each (terms.h)

  // Several lines: the verdict, the rules, its terms or what would allow it.
  kj::String toText() const;
};

Explanation explain(const Policy& policy, const Request& request);

}  // namespace postern::policy
