#pragma once
// What changes between two policies: what was written, and what is decided.

#include "protocol/policy/policy.h"

namespace postern::policy {

struct Change {
  enum class Kind : uint8_t { ADDED, REMOVED, CHANGED };
  enum class Of : uint8_t { RULE, GROUP, PORT, VM_TO_VM };
  Kind kind;
  Of of;
  kj::String name;  // a rule's id, a group's name, a VM; empty for VM_TO_VM

  kj::String toString() const;  // "rule 'ops' changed"
};

// Verdicts of two policies on one question. `caller` and so on number the questions' lists.
struct VerdictChange {
  size_t caller, target, call;
  Decision before, after;  // of their policies

  bool turned() const { return before.isAllowed() != after.isAllowed(); }
};

// Every caller asks every call of every target; what cannot be asked is left out.
struct Questions {
  struct Call {
    kj::StringPtr call;
    kj::Maybe<kj::StringPtr> path;
  };
  kj::ArrayPtr<const Caller> callers;
  kj::ArrayPtr<const Target> targets;
  kj::ArrayPtr<const Call> calls;
  kj::Date now = kj::UNIX_EPOCH;
};

// Sorted by kind of thing and name. Tests are no part of it.
kj::Vector<Change> changes(const Policy& before, const Policy& after);

// Those questions whose verdict, deciding rule, limits or run-as differ.
kj::Vector<VerdictChange> verdictChanges(const Policy& before, const Policy& after, const Questions& questions);

}  // namespace postern::policy
