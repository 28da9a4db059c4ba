#pragma once
// PathScope: what one caller's file call may touch, taken out of a policy so that it can travel to the process that
// sees the names (schema::PathScope): postern-session on the host, the opener in the guest. Its verdict for a path is
// the policy's own (policy.h, steps 4, 6 and 7), except that rules which expire later go on counting: a reload or a new
// order makes a new scope.

#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/policy/policy.h"
#include "protocol/transfer.capnp.h"

namespace postern::transfer {

class PathScope {
 public:
  struct Verdict {
    bool allowed;
    kj::StringPtr rule;   // which decided; empty: none
    kj::StringPtr runAs;  // of the rule that allowed; empty: it says nothing
  };

  // `request` is a file call; any other gives an empty scope, and so does a blocked port. Its path says which rule's
  // quotas hold: of the one that allows it; without a path, or with one that is denied, the smallest of all rules, and
  // `special` if all say so. Everything is copied. More than MAX_SCOPE_RULES, or MAX_SCOPE_BYTES of globs, give an
  // empty scope: nothing is left out that could deny.
  static PathScope of(const policy::Policy& policy, const policy::Request& request);
  // Or what is wrong with it. For a scope from a process that this one trusts to decide.
  static kj::OneOf<PathScope, kj::String> parse(schema::PathScope::Reader from);
  void write(schema::PathScope::Builder to) const;

  // `path` is canonical; anything else is denied.
  Verdict decide(kj::ArrayPtr<const char> path) const;
  // For a process that runs as this user (empty: as nobody in particular): what other rules allow is for other users,
  // and is not done by it. Denies stay.
  void keepRunAs(kj::StringPtr runAs);
  // Whether there may be a path that is allowed: a rule allows, and none denies every path.
  bool allowsSomething() const;
  // Where a process is to be confined that shall work on `path`: the longest folder without a pattern of the glob that
  // allows it ("/srv/www" of "/srv/www/**", "/etc" of "/etc/hosts"), "/" of a rule without paths. It is above `path`,
  // but for "/" itself. Null if `path` is denied.
  kj::Maybe<kj::String> rootFor(kj::ArrayPtr<const char> path) const;

  uint64_t maxBytes = 0;  // quotas of one transfer; 0: none
  uint64_t maxFiles = 0;
  uint32_t maxDepth = 0;
  bool special = false;

 private:
  struct Rule {
    kj::String id;
    bool denies = false;
    kj::Vector<policy::PathGlob> paths;
    kj::String runAs;
  };
  kj::Vector<Rule> rules;  // sorted by id

  kj::Maybe<const Rule&> decides(kj::ArrayPtr<const char> path) const;
  void takeQuotas(const policy::Quotas& quotas);
  void takeSmallest(const policy::Quotas& quotas);
  static kj::Maybe<kj::String> parseRule(schema::PathScope::Rule::Reader from, Rule& to);
};

}  // namespace postern::transfer
