#include "protocol/policy/index.h"

#include <kj/debug.h>

namespace postern::policy {

namespace {

// Lists grow in ascending order; a name that stands twice in one place counts once.
void addOnce(kj::Vector<uint16_t>& numbers, uint16_t number) {
  if (numbers.empty() || numbers.back() != number) numbers.add(number);
}

size_t clauseCount(const Document& document) {
  size_t count = 0;
  for (auto& rule : document.rules) count += rule.kind == Rule::Kind::SEGMENT ? 2 + rule.communities.size() : 1;
  return count;
}

}  // namespace

Index::Index(const Document& document) : document(document), denyClauses(clauseCount(document)) {
  KJ_REQUIRE(clauseCount(document) <= MAX_RULES && document.groups.size() <= MAX_GROUPS);
  addGroups();
  for (auto& rule : document.rules) addRule(rule);
  for (auto& port : document.ports) ports.insert(kj::StringPtr(port.vm), &port);
}

Index::Entry& Index::entryFor(const Party& party) {
  auto in = [&](Names& names) -> Entry& {
    return names.findOrCreate(party.name, [&]() { return Names::Entry{party.name, Entry()}; });
  };
  switch (party.kind) {
    case Party::Kind::USER:
      return in(users);
    case Party::Kind::HOST_GROUP:
      return in(hostGroups);
    case Party::Kind::VM:
      return in(vms);
    case Party::Kind::TAG:
      return in(tags);
    case Party::Kind::GROUP:
      return groupEntries[KJ_REQUIRE_NONNULL(groupNumber(party.name))];
    case Party::Kind::HOST:
    case Party::Kind::ANY:
      break;
  }
  KJ_UNREACHABLE;
}

// Groups ------------------------------------------------------------------------------------------------------------

void Index::addGroups() {
  size_t count = document.groups.size();
  groupEntries = kj::heapArray<Entry>(count);
  for (size_t i = 0; i < count; ++i) groupNumbers.insert(document.groups[i].name, uint16_t(i));
  auto parents = kj::heapArray<Numbers>(count);
  for (size_t i = 0; i < count; ++i) {
    for (auto& member : document.groups[i].members) {
      if (member.kind == Party::Kind::GROUP) {
        addOnce(parents[KJ_REQUIRE_NONNULL(groupNumber(member.name))], uint16_t(i));
      } else {
        addOnce(entryFor(member).groups, uint16_t(i));
      }
    }
  }
  ancestors = kj::heapArray<kj::Array<uint64_t>>(count);
  auto done = kj::heapArray<bool>(count);
  for (auto& flag : done) flag = false;
  for (size_t i = 0; i < count; ++i) addAncestors(i, parents, done);
}

// Groups have no cycle, so this ends; its depth is at most MAX_GROUPS.
void Index::addAncestors(size_t group, kj::ArrayPtr<const Numbers> parents, kj::ArrayPtr<bool> done) {
  if (done[group]) return;
  done[group] = true;
  auto own = kj::heapArray<uint64_t>((groupEntries.size() + 63) / 64);
  for (auto& word : own) word = 0;
  own[group / 64] |= uint64_t(1) << (group % 64);
  for (auto parent : parents[group]) {
    addAncestors(parent, parents, done);
    for (size_t i = 0; i < own.size(); ++i) own[i] |= ancestors[parent][i];
  }
  ancestors[group] = kj::mv(own);
}

kj::Maybe<size_t> Index::groupNumber(kj::StringPtr name) const {
  KJ_IF_MAYBE (number, groupNumbers.find(name)) return size_t(*number);
  return nullptr;
}

// Clauses -----------------------------------------------------------------------------------------------------------

uint16_t Index::addClause(const Rule& rule) {
  auto number = uint16_t(clauses.size());
  clauses.add(Clause{&rule, rule.kind == Rule::Kind::DENY});
  if (rule.kind == Rule::Kind::DENY) denyClauses.add(number);
  for (auto& call : rule.calls) {
    switch (call.kind) {
      case CallPattern::Kind::EXACT:
        exactCalls.findOrCreate(call.text,
                                [&]() {
                                  return kj::HashMap<kj::StringPtr, Numbers>::Entry{call.text, {}};
                                })
            .add(number);
        break;
      case CallPattern::Kind::FAMILY:
        addOnce(familyCalls[size_t(call.family)], number);
        break;
      case CallPattern::Kind::EVERY:
        addOnce(everyCall, number);
        break;
    }
  }
  return number;
}

void Index::addParty(const Party& party, List list, uint16_t clause) {
  bool isFrom = list == &Entry::from;
  if (party.kind == Party::Kind::HOST) {
    addOnce(isFrom ? fromHost : toHost, clause);
  } else if (party.kind == Party::Kind::ANY) {
    addOnce(isFrom ? fromAny : toAny, clause);
  } else {
    addOnce(entryFor(party).*list, clause);
  }
}

void Index::addParties(kj::ArrayPtr<const Party> parties, List list, uint16_t clause) {
  for (auto& party : parties) addParty(party, list, clause);
}

void Index::addRule(const Rule& rule) {
  if (rule.kind == Rule::Kind::SEGMENT) {
    addSegment(rule);
    return;
  }
  auto clause = addClause(rule);
  addParties(rule.from, &Entry::from, clause);
  addParties(rule.to, &Entry::to, clause);
  if (document.side == Side::GUEST) {
    if (rule.from.empty()) fromHost.add(clause);
    toAny.add(clause);
  }
}

void Index::addSegment(const Rule& rule) {
  auto addMembers = [&](List list, uint16_t clause) {
    addParties(rule.promiscuous, list, clause);
    addParties(rule.isolated, list, clause);
    for (auto& community : rule.communities) addParties(community.members, list, clause);
  };
  auto outward = addClause(rule);
  addParties(rule.promiscuous, &Entry::from, outward);
  addMembers(&Entry::to, outward);
  auto inward = addClause(rule);
  addMembers(&Entry::from, inward);
  addParties(rule.promiscuous, &Entry::to, inward);
  for (auto& community : rule.communities) {
    auto among = addClause(rule);
    addParties(community.members, &Entry::from, among);
    addParties(community.members, &Entry::to, among);
  }
}

// Lookup ------------------------------------------------------------------------------------------------------------

template <typename Visit>
void Index::visit(const HostCaller& caller, Visit&& visit) const {
  KJ_IF_MAYBE (entry, users.find(caller.user)) visit(*entry);
  for (auto group : caller.groups) {
    KJ_IF_MAYBE (entry, hostGroups.find(group)) visit(*entry);
  }
}

template <typename Visit>
void Index::visit(const Vm& vm, Visit&& visit) const {
  KJ_IF_MAYBE (entry, vms.find(vm.name)) visit(*entry);
  for (auto tag : vm.tags) {
    KJ_IF_MAYBE (entry, tags.find(tag)) visit(*entry);
  }
}

void Index::addAncestorsOf(const Entry& entry, GroupSet& out) const {
  for (auto group : entry.groups) {
    for (size_t i = 0; i < out.wordCount(); ++i) out.word(i) |= ancestors[group][i];
  }
}

void Index::groupsOf(const Caller& caller, GroupSet& out) const {
  auto add = [&](const Entry& entry) { addAncestorsOf(entry, out); };
  KJ_SWITCH_ONEOF(caller) {
    KJ_CASE_ONEOF(user, HostCaller) visit(user, add);
    KJ_CASE_ONEOF(vm, Vm) visit(vm, add);
  }
}

void Index::groupsOf(const Target& target, GroupSet& out) const {
  KJ_IF_MAYBE (vm, target.tryGet<Vm>()) visit(*vm, [&](const Entry& entry) { addAncestorsOf(entry, out); });
}

template <typename Who>
void Index::collect(const Who& who, List list, ClauseSet& out) const {
  GroupSet groups(groupEntries.size());
  visit(who, [&](const Entry& entry) {
    out.addAll(entry.*list);
    addAncestorsOf(entry, groups);
  });
  for (size_t i = 0; i < groups.wordCount(); ++i) {
    for (uint64_t left = groups.word(i); left != 0; left &= left - 1) {
      out.addAll(groupEntries[i * 64 + size_t(__builtin_ctzll(left))].*list);
    }
  }
}

void Index::match(const Request& request, CallFamily family, ClauseSet& out) const {
  out.addAll(everyCall);
  out.addAll(familyCalls[size_t(family)]);
  KJ_IF_MAYBE (exact, exactCalls.find(request.call)) out.addAll(*exact);
  ClauseSet parties(clauses.size());
  matchParties(request.caller, request.target, parties);
  for (size_t i = 0; i < out.wordCount(); ++i) out.word(i) &= parties.word(i);
}

void Index::matchParties(const Caller& caller, const Target& target, ClauseSet& out) const {
  KJ_SWITCH_ONEOF(caller) {
    KJ_CASE_ONEOF(user, HostCaller) {
      out.addAll(fromHost);
      collect(user, &Entry::from, out);
    }
    KJ_CASE_ONEOF(vm, Vm) {
      out.addAll(fromAny);
      collect(vm, &Entry::from, out);
    }
  }
  ClauseSet to(clauses.size());
  KJ_SWITCH_ONEOF(target) {
    KJ_CASE_ONEOF(vm, Vm) {
      to.addAll(toAny);
      collect(vm, &Entry::to, to);
    }
    KJ_CASE_ONEOF(host, TheHost) to.addAll(toHost);
  }
  for (size_t i = 0; i < out.wordCount(); ++i) out.word(i) &= to.word(i);
}

kj::Maybe<const Port&> Index::port(kj::StringPtr vm) const {
  KJ_IF_MAYBE (port, ports.find(vm)) return **port;
  return nullptr;
}

}  // namespace postern::policy
