#pragma once
// Index: which rules name a caller, a target and a call, by lookup in place of a search. Rules become clauses (a rule
// is one; a segment is one for each direction that it opens), numbered by their rule's id, and a set of clauses is a
// bitmap: what matches is the intersection of three, and its first bit is the clause with the smallest id.

#include <kj/array.h>
#include <kj/map.h>
#include <kj/vector.h>
#include <stdint.h>

#include "protocol/policy/bounds.h"
#include "protocol/policy/policy.h"

namespace postern::policy {

// A set of small numbers of which only the first `size` can be in it. Lives on the stack.
template <size_t MAX>
class BitSet {
 public:
  explicit BitSet(size_t size) : words((size + 63) / 64) {
    for (size_t i = 0; i < words; ++i) bits[i] = 0;
  }
  void add(size_t n) { bits[n / 64] |= uint64_t(1) << (n % 64); }
  bool contains(size_t n) const { return (bits[n / 64] >> (n % 64)) & 1; }
  void addAll(kj::ArrayPtr<const uint16_t> numbers) {
    for (auto n : numbers) add(n);
  }
  size_t wordCount() const { return words; }
  uint64_t word(size_t i) const { return bits[i]; }
  uint64_t& word(size_t i) { return bits[i]; }

 private:
  size_t words;
  uint64_t bits[(MAX + 63) / 64];
};
using ClauseSet = BitSet<MAX_RULES>;
using GroupSet = BitSet<MAX_GROUPS>;

class Index {
 public:
  // The document's rules are sorted by id; it outlives this object.
  explicit Index(const Document& document);
  KJ_DISALLOW_COPY(Index);

  struct Clause {
    const Rule* rule;
    bool isDeny;
  };
  kj::ArrayPtr<const Clause> allClauses() const { return clauses; }

  // Adds the clauses that name the caller and the target and cover the call; their paths and expiry are not looked at.
  void match(const Request& request, CallFamily family, ClauseSet& out) const;
  // The clauses that name both, whatever their calls; `out` comes empty.
  void matchParties(const Caller& caller, const Target& target, ClauseSet& out) const;

  // The groups of the policy that hold this caller or target, directly or through other groups.
  void groupsOf(const Caller& caller, GroupSet& out) const;
  void groupsOf(const Target& target, GroupSet& out) const;
  kj::Maybe<size_t> groupNumber(kj::StringPtr name) const;

  kj::Maybe<const Port&> port(kj::StringPtr vm) const;
  const ClauseSet& denies() const { return denyClauses; }

 private:
  using Numbers = kj::Vector<uint16_t>;
  // What is known of one name.
  struct Entry {
    Numbers groups;  // that list it
    Numbers from;    // clauses that name it
    Numbers to;
  };
  using Names = kj::HashMap<kj::StringPtr, Entry>;

  const Document& document;
  kj::Vector<Clause> clauses;
  ClauseSet denyClauses;
  Names users, hostGroups, vms, tags;
  kj::HashMap<kj::StringPtr, uint16_t> groupNumbers;
  kj::Array<Entry> groupEntries;             // `groups` is not used
  kj::Array<kj::Array<uint64_t>> ancestors;  // of each group: itself and every group that holds it
  Numbers fromHost, fromAny, toHost, toAny;
  kj::HashMap<kj::StringPtr, Numbers> exactCalls;
  Numbers familyCalls[CALL_FAMILIES];
  Numbers everyCall;
  kj::HashMap<kj::StringPtr, const Port*> ports;

  using List = Numbers Entry::*;
  void addGroups();
  void addAncestors(size_t group, kj::ArrayPtr<const Numbers> parents, kj::ArrayPtr<bool> done);
  void addRule(const Rule& rule);
  uint16_t addClause(const Rule& rule);
  void addParty(const Party& party, List list, uint16_t clause);
  void addParties(kj::ArrayPtr<const Party> parties, List list, uint16_t clause);
  void addSegment(const Rule& rule);
  Entry& entryFor(const Party& party);

  template <typename Visit>
  void visit(const HostCaller& caller, Visit&& visit) const;
  template <typename Visit>
  void visit(const Vm& vm, Visit&& visit) const;
  void addAncestorsOf(const Entry& entry, GroupSet& out) const;
  template <typename Who>
  void collect(const Who& who, List list, ClauseSet& out) const;
};

}  // namespace postern::policy
