#pragma once
// Policy: one side's rules, checked and indexed, and the verdicts they give. Immutable: a reload makes a new one, and a
// Policy may be read from several threads. The verdict depends on what the rules are, never on their order or files.
//
//   1. What is no call, or none that such a caller can make of such a target, is denied; in a guest also every call of
//      the host, which is not the guest's to decide. So are a file call whose path is not canonical (path-glob.h), and,
//      on the host, whatever a VM asks of itself, be it by `any`, a group or a segment.
//   2. An administrator's admin.* calls are allowed.
//   3. A blocked port of the caller or the target denies. status.read alone is exempt: posternd answers it, nothing
//      passes the port.
//   4. A [[deny]] that matches denies.
//   5. VM to VM is denied unless vm-to-vm = "enabled" (host).
//   6. An [[allow]] or [[segment]] that matches allows. If several do, the one with the smallest id (by bytes) is the
//      one: its id is named, its limits and its run-as hold.
//   7. Everything else is denied. No rules at all: everything is.
//
// A rule with `expires` in the past matches nothing. Matching is by names that the caller of decide() vouches for.

#include <kj/array.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <stdint.h>

#include <array>

#include "protocol/policy/rule.h"

namespace postern::policy {

// Somebody on the host, as SO_PEERCRED and the user database say; in a guest, as the host vouches.
struct HostCaller {
  kj::StringPtr user;                                                           // empty if the uid has no name
  kj::ArrayPtr<const kj::StringPtr> groups;                                     // all of them, primary too
  enum class Rights : uint8_t { USUAL, ADMINISTRATOR } rights = Rights::USUAL;  // root and posternd's own user
};

// A VM as caller or as target. In a guest, the target is Vm() whatever the guest is called.
struct Vm {
  kj::StringPtr name;
  kj::ArrayPtr<const kj::StringPtr> tags;
};
struct TheHost {};

using Caller = kj::OneOf<HostCaller, Vm>;
using Target = kj::OneOf<Vm, TheHost>;

// Names that are empty, as in a policy's tests about any VM, are nobody's.
bool isSameVm(const Caller& caller, const Target& target);

// Everything that is asked; all of it is borrowed for the time of the call.
struct Request {
  Caller caller;
  Target target;
  kj::StringPtr call;             // exact, "file.get"
  kj::Maybe<kj::StringPtr> path;  // of file.* calls, and of those alone
  kj::Date now = kj::UNIX_EPOCH;  // wall-clock time, for `expires`
};

enum class Reason : uint8_t {
  // Allowed:
  RULE,           // an [[allow]]
  SEGMENT,        // a [[segment]]
  ADMINISTRATOR,  // admin.* by root or posternd's user
  // Denied:
  UNKNOWN_CALL,  // does not exist, or is reserved
  NOT_CALLABLE,  // exists, but not for such a caller and such a target
  ITSELF,        // a VM, as caller and as target
  BAD_PATH,      // file.* without a canonical path, or a path where none belongs
  BLOCKED_PORT,
  DENY_RULE,
  VM_TO_VM_DISABLED,
  EXPIRED,  // only rules that have expired would allow it
  NO_RULE,
};
// "blocked-port": a stable word, for logs and machines.
kj::StringPtr word(Reason reason);

// A verdict. What it refers to belongs to the Policy.
struct Decision {
  Reason reason;
  kj::Maybe<const Rule&> rule;  // which decided: RULE, SEGMENT, DENY_RULE; EXPIRED: the one that would have
  kj::Maybe<const Port&> port;  // BLOCKED_PORT

  bool isAllowed() const { return reason <= Reason::ADMINISTRATOR; }
  kj::StringPtr ruleId() const;  // empty if no rule is named
  const Limits& limits() const;  // empty unless a rule allowed it
  kj::Maybe<kj::StringPtr> runAs() const;
  // One line for the caller and the audit: "denied by rule 'no-web' (web.toml:12)".
  kj::String toString() const;
};

// What a person can do about a denial.
struct Advice {
  kj::String text;             // a sentence
  kj::Maybe<kj::String> toml;  // to be added to the policy, for example as a file of its own behind `policy = 1`: after
                               // that the same request is allowed. Null where no addition can allow it.
};

using PolicyHash = std::array<kj::byte, 32>;

class Index;

class Policy {
 public:
  // Denies everything.
  static kj::Own<const Policy> denyAll(Side side);
  // Of a document that checkDocument() (check.h) found without errors; load.h does all of it.
  explicit Policy(Document&& document);
  ~Policy() noexcept(false);
  KJ_DISALLOW_COPY(Policy);

  // Does not allocate.
  Decision decide(const Request& request) const;

  // Of a request that is denied.
  Advice advise(const Request& request) const;

  // A VM's port, if the policy has one: its limits hold beside a rule's.
  kj::Maybe<const Port&> port(kj::StringPtr vm) const;

  // BLAKE2b-256 of what the policy says, independent of the order of rules and files, comments, spacing and names of
  // files. A policy without rules has one, too.
  const PolicyHash& hash() const { return policyHash; }

  // Rules sorted by id.
  const Document& document() const { return content; }
  const Index& index() const { return *lookup; }

 private:
  Document content;
  kj::Own<Index> lookup;
  PolicyHash policyHash;

  kj::Maybe<const Port&> blockedPort(const Request& request) const;
  Decision decideByRules(const Request& request, CallFamily family) const;
  Advice adviseVmToVm(const Request& request) const;
};

// A policy's hash as people and logs see it: 64 hexadecimal digits.
kj::String toHex(const PolicyHash& hash);

}  // namespace postern::policy
