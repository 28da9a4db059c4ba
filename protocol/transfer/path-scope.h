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

  // `request` is a file call; its path is not looked at. Everything is copied.
  static PathScope of(const policy::Policy& policy, const policy::Request& request);
  // Or what is wrong with it. For a scope from a process that this one trusts to decide.
  static kj::OneOf<PathScope, kj::String> parse(schema::PathScope::Reader from);
  void write(schema::PathScope::Builder to) const;

  // `path` is canonical; anything else is denied.
  Verdict decide(kj::ArrayPtr<const char> path) const;
  // Whether there is any path that is allowed.
  bool allowsSomething() const;
  // Where the paths lie that may be allowed, for a process that is to be confined: the longest folder without a pattern
  // above every path that the rule allows: "/srv/www" of "/srv/www/**", "/etc" of "/etc/hosts". Of the rule that
  // decides for `path`; null if that is denied.
  kj::Maybe<kj::String> rootFor(kj::ArrayPtr<const char> path) const;

  uint64_t maxBytes = 0;  // quotas of one transfer; 0: none
  uint64_t maxFiles = 0;
  uint32_t maxDepth = 0;
  bool special = false;

 private:
  struct Rule {
    kj::String id;
    bool denies;
    kj::Vector<policy::PathGlob> paths;
    kj::String runAs;
  };
  kj::Vector<Rule> rules;
};

}  // namespace postern::transfer
