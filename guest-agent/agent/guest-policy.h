#pragma once
// GuestPolicy: the guest's own lock: agent.toml's rules, asked for a caller whom the host vouches for. Without a file
// it denies everything. Both processes of the agent have one, read from the same text.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "guest-agent/files/file-place.h"
#include "guest-agent/power/caller-text.h"
#include "guest-agent/verdict.h"
#include "protocol/policy/policy.h"

namespace postern::guest {

// What is wrong with a policy, a line each: "agent.toml:12: ...".
struct PolicyErrors {
  kj::Array<kj::String> lines;
};

class GuestPolicy {
 public:
  static kj::Own<const GuestPolicy> denyAll();
  // `text` is the whole file; its tables [agent], [service.NAME] and [[consume]] are the settings' matter.
  static kj::OneOf<kj::Own<const GuestPolicy>, PolicyErrors> parse(kj::StringPtr fileName, kj::StringPtr text);

  explicit GuestPolicy(kj::Own<const policy::Policy> rules) : rules(kj::mv(rules)) {}

  // Null: allowed.
  kj::Maybe<Denial> decide(const VouchedCaller& caller, kj::StringPtr call) const;
  // The same for a file call, with all that follows from it. Calls that carry a path are denied by the one above.
  kj::OneOf<FilePlace, Denial> decideFile(const VouchedCaller& caller, const transfer::FileOrder& order) const;
  // Of somebody who is nobody.
  static Denial unknownCaller();

  const policy::PolicyHash& hash() const { return rules->hash(); }

 private:
  kj::Own<const policy::Policy> rules;
};

}  // namespace postern::guest
