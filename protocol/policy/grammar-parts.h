#pragma once
// The parts that several tables of a policy file have in common: lists of parties, calls and globs, limits.

#include "protocol/policy/rule.h"
#include "protocol/policy/table-reader.h"

namespace postern::policy {

// Where a party stands, which says what it may be.
enum class PartyUse {
  CALLER,       // everything
  TARGET,       // VMs, and the host
  MEMBER,       // of a group: everything but host and any
  SEGMENT,      // VMs, but not any
  TEST_CALLER,  // somebody in particular
  TEST_TARGET,
};

// What is wrong goes to `problems` and is left out.
kj::Vector<Party> readParties(kj::ArrayPtr<const PlacedText> texts, PartyUse use, Problems& problems);
kj::Vector<CallPattern> readCalls(kj::ArrayPtr<const PlacedText> texts, Problems& problems);
kj::Vector<PathGlob> readGlobs(kj::ArrayPtr<const PlacedText> texts, Problems& problems);
Limits readLimits(TableReader& table, Problems& problems);
Quotas readQuotas(TableReader& table, Problems& problems);
kj::Maybe<Mirror> readMirrorTable(TableReader& table, Problems& problems);

// An entry of `test`, as a whole.
Expectation readExpectation(TableReader& table, Side side, Problems& problems);

// A test's caller and target are one: a user and groups that he is in, or a VM and its tags, or the host, or any.
void checkOneParty(kj::ArrayPtr<const Party> parties, Place place, kj::StringPtr key, Problems& problems);

}  // namespace postern::policy
