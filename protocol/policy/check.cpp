#include "protocol/policy/check.h"

#include <kj/debug.h>
#include <kj/map.h>

#include "protocol/policy/bounds.h"
#include "protocol/policy/units.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

// Which kinds of caller or target somebody can be.
struct Kinds {
  bool host = false;
  bool vm = false;

  void add(Kinds other) {
    host |= other.host;
    vm |= other.vm;
  }
  bool has(PartyKind kind) const { return kind == PartyKind::HOST ? host : vm; }
};

// Which VMs somebody can be, as far as a policy can tell: none, one by name, or more.
struct Vms {
  kj::StringPtr one;
  bool more = false;

  void add(Vms other) {
    more |= other.more || (one.size() > 0 && other.one.size() > 0 && one != other.one);
    if (one.size() == 0) one = other.one;
  }
  bool isOnly(kj::StringPtr vm) const { return !more && one == vm; }
};

constexpr PartyKind PARTY_KINDS[] = {PartyKind::HOST, PartyKind::VM};

bool canCall(const CallPattern& pattern, Kinds callers, Kinds targets) {
  for (size_t i = 0; i < CALL_FAMILIES; ++i) {
    auto family = static_cast<CallFamily>(i);
    if (pattern.kind != CallPattern::Kind::EVERY && pattern.family != family) continue;
    for (auto caller : PARTY_KINDS) {
      for (auto target : PARTY_KINDS) {
        if (callers.has(caller) && targets.has(target) && isCallable(family, caller, target)) return true;
      }
    }
  }
  return false;
}

class Checker {
 public:
  Checker(const Document& document, int64_t now, Problems& problems)
      : document(document), now(now), problems(problems), states(kj::heapArray<State>(document.groups.size())) {}

  void check() {
    if (!checkBounds()) return;
    checkDoubles();
    checkGroups();
    for (auto& rule : document.rules) checkRule(rule);
  }

 private:
  // Of a group: what its members can be.
  struct State {
    enum class Visit { NEW, OPEN, DONE } visit = Visit::NEW;
    Kinds kinds;
    Vms vms;
  };

  const Document& document;
  int64_t now;
  Problems& problems;
  kj::HashMap<kj::StringPtr, size_t> groupNumbers;
  kj::Vector<kj::StringPtr> groupNames;
  kj::Array<State> states;

  bool checkBounds() {
    size_t clauses = 0;
    kj::Maybe<Place> last;
    for (auto& rule : document.rules) {
      clauses += rule.kind == Rule::Kind::SEGMENT ? 2 + rule.communities.size() : 1;
      if (clauses > MAX_RULES) {
        problems.error(rule.place, "over ", MAX_RULES, " rules (a segment counts as two and one for each community)");
        return false;
      }
    }
    return isWithin(document.groups, MAX_GROUPS, "groups") && isWithin(document.tests, MAX_TESTS, "tests") &&
           isWithin(document.ports, MAX_PORTS, "ports");
  }

  template <typename List>
  bool isWithin(const List& list, size_t max, kj::StringPtr what) {
    if (list.size() > max) problems.error(list[max].place, "over ", max, " ", what);
    return list.size() <= max;
  }

  template <typename List, typename NameOf>
  void checkUnique(const List& list, kj::StringPtr what, NameOf&& nameOf) {
    kj::HashMap<kj::StringPtr, Place> first;
    for (auto& one : list) {
      kj::StringPtr name = nameOf(one);
      if (name.size() == 0) continue;
      KJ_IF_MAYBE (place, first.find(name)) {
        problems.error(one.place, what, " ", quote(name), " is used twice; it stands at ", *place, " already");
      } else {
        first.insert(name, one.place);
      }
    }
  }

  void checkDoubles() {
    checkUnique(document.rules, "rule id", [](auto& rule) -> kj::StringPtr { return rule.id; });
    checkUnique(document.groups, "group name", [](auto& group) -> kj::StringPtr { return group.name; });
    checkUnique(document.ports, "port", [](auto& port) -> kj::StringPtr { return port.vm; });
  }

  // Groups ----------------------------------------------------------------------------------------------------------

  void checkGroups() {
    for (size_t i = 0; i < document.groups.size(); ++i) {
      kj::StringPtr name = document.groups[i].name;
      if (groupNumbers.find(name) != nullptr) continue;
      groupNumbers.insert(name, i);
      groupNames.add(name);
    }
    for (size_t i = 0; i < document.groups.size(); ++i) visitGroup(i);
  }

  // Depth-first, at most MAX_GROUPS deep; a group that is met while it is open holds itself.
  void visitGroup(size_t number) {
    auto& state = states[number];
    if (state.visit != State::Visit::NEW) return;
    state.visit = State::Visit::OPEN;
    for (auto& member : document.groups[number].members) {
      KJ_IF_MAYBE (inner, groupOf(member)) {
        if (states[*inner].visit == State::Visit::OPEN) {
          problems.error(member.place, "group ", quote(document.groups[number].name), " holds itself, by way of ",
                         quote(kj::str(member)));
          continue;
        }
        visitGroup(*inner);
      }
      state.kinds.add(kindsOf(member));
      state.vms.add(vmsOf(member));
    }
    state.visit = State::Visit::DONE;
  }

  // Null for what is no group, and, with an error, for an unknown one.
  kj::Maybe<size_t> groupOf(const Party& party) {
    if (party.kind != Party::Kind::GROUP) return nullptr;
    KJ_IF_MAYBE (number, groupNumbers.find(party.name)) return *number;
    if (problems.isFull()) return nullptr;
    problems.error(party.place, "unknown group ", quote(kj::str(party)), didYouMean(party.name, groupNames),
                   groupNames.empty() ? "; the policy has no groups"_kj : ""_kj);
    return nullptr;
  }

  Kinds kindsOf(const Party& party) const {
    switch (party.kind) {
      case Party::Kind::USER:
      case Party::Kind::HOST_GROUP:
      case Party::Kind::HOST:
        return {true, false};
      case Party::Kind::VM:
      case Party::Kind::TAG:
      case Party::Kind::ANY:
        return {false, true};
      case Party::Kind::GROUP:
        KJ_IF_MAYBE (number, groupNumbers.find(party.name)) return states[*number].kinds;
        return {true, true};  // unknown, which is an error already
    }
    KJ_UNREACHABLE;
  }

  Kinds kindsOf(kj::ArrayPtr<const Party> parties) const {
    Kinds kinds;
    for (auto& party : parties) kinds.add(kindsOf(party));
    return kinds;
  }

  Vms vmsOf(const Party& party) const {
    switch (party.kind) {
      case Party::Kind::USER:
      case Party::Kind::HOST_GROUP:
      case Party::Kind::HOST:
        return {};
      case Party::Kind::VM:
        return {party.name};
      case Party::Kind::TAG:
      case Party::Kind::ANY:
        return {{}, true};
      case Party::Kind::GROUP:
        KJ_IF_MAYBE (number, groupNumbers.find(party.name)) return states[*number].vms;
        return {{}, true};  // unknown, which is an error already
    }
    KJ_UNREACHABLE;
  }

  Vms vmsOf(kj::ArrayPtr<const Party> parties) const {
    Vms vms;
    for (auto& party : parties) vms.add(vmsOf(party));
    return vms;
  }

  // Rules -----------------------------------------------------------------------------------------------------------

  void checkRule(const Rule& rule) {
    KJ_IF_MAYBE (expires, rule.expires) {
      if (*expires <= now) {
        problems.warning(rule.place, "rule ", quote(rule.id), " has expired (", formatTime(*expires),
                         ") and does not apply; remove or renew it");
      }
    }
    if (rule.kind == Rule::Kind::SEGMENT) {
      checkSegment(rule);
    } else {
      for (auto& party : rule.from) groupOf(party);
      for (auto& party : rule.to) groupOf(party);
      checkApplies(rule);
    }
  }

  // Whether the rule's one caller is a VM, and its one target the same.
  bool isFromVmToItself(const Rule& rule, Kinds callers, Kinds targets) const {
    if (document.side == Side::GUEST || callers.host || targets.host) return false;
    auto from = vmsOf(rule.from);
    return !from.more && vmsOf(rule.to).isOnly(from.one);
  }

  kj::StringPtr whatCanBe(Kinds callers, Kinds targets) const {
    if (document.side == Side::GUEST) {
      return "in a guest, callers on the host have status.read, ping, info.*, power.*, file.* and service.*, VMs "
             "service.* alone"_kj;
    }
    if (!callers.host) return "a VM can call service.* alone"_kj;
    if (!targets.vm) return "callers on the host can call admin.* of the host alone, and VMs service.*"_kj;
    return "admin.* is a call of the host, to = \"host\""_kj;
  }

  // Every caller, target and call that a rule lists must be able to come into play.
  void checkApplies(const Rule& rule) {
    Kinds callers = kindsOf(rule.from);
    Kinds targets;
    for (auto& party : rule.to) {
      // Users in a group that is a target are no targets.
      if (party.kind == Party::Kind::HOST) {
        targets.host = true;
      } else {
        targets.vm |= kindsOf(party).vm;
      }
    }
    if (document.side == Side::GUEST) {
      if (rule.from.empty()) callers.host = true;
      targets.vm = true;
    } else if (rule.from.empty() || rule.to.empty()) {
      return;  // an error already
    }
    if (rule.calls.empty()) return;

    auto anyCall = [&](Kinds from, Kinds to) {
      for (auto& call : rule.calls) {
        if (canCall(call, from, to)) return true;
      }
      return false;
    };
    if (!anyCall(callers, targets)) {
      problems.error(rule.place, "rule ", quote(rule.id), " can never apply: ", whatCanBe(callers, targets));
      return;
    }
    if (isFromVmToItself(rule, callers, targets)) {
      problems.error(rule.place, "rule ", quote(rule.id),
                     " can never apply: it is from a VM to itself, and no VM has a "
                     "channel to itself");
      return;
    }
    for (auto& party : rule.from) {
      if (!anyCall(kindsOf(party), targets)) {
        problems.error(party.place, "from ", quote(kj::str(party)),
                       " can never apply in this rule: ", whatCanBe(kindsOf(party), targets));
      }
    }
    for (auto& party : rule.to) {
      Kinds kinds{party.kind == Party::Kind::HOST, party.kind != Party::Kind::HOST && kindsOf(party).vm};
      if (!anyCall(callers, kinds)) {
        problems.error(party.place, "to ", quote(kj::str(party)), " can never apply in this rule: ",
                       kinds.vm || kinds.host ? whatCanBe(callers, kinds) : "it has no VM"_kj);
      }
    }
    for (auto& call : rule.calls) {
      if (!canCall(call, callers, targets)) {
        problems.error(rule.place, "call ", quote(call.text),
                       " can never apply in this rule: ", whatCanBe(callers, targets));
      }
    }
  }

  void checkSegment(const Rule& rule) {
    kj::HashMap<kj::String, Place> roles;
    size_t members = 0;
    auto checkMember = [&](const Party& party) {
      ++members;
      KJ_IF_MAYBE (number, groupOf(party)) {
        if (!states[*number].kinds.vm) problems.error(party.place, quote(kj::str(party)), " has no VM");
      }
      auto text = kj::str(party);
      KJ_IF_MAYBE (place, roles.find(text)) {
        problems.error(party.place, quote(text), " is in this segment twice; it stands at ", *place, " already");
      } else {
        roles.insert(kj::mv(text), party.place);
      }
    };
    for (auto& party : rule.promiscuous) checkMember(party);
    for (auto& party : rule.isolated) checkMember(party);
    for (auto& community : rule.communities) {
      for (auto& party : community.members) checkMember(party);
    }
    if (members == 0 || (rule.promiscuous.empty() && rule.communities.empty())) {
      problems.error(rule.place, "segment ", quote(rule.id),
                     " can never apply: it has no promiscuous member and no community, so nobody talks");
    } else if (!letsTwoTalk(rule)) {
      problems.error(rule.place, "segment ", quote(rule.id),
                     " can never apply: no member has another one to talk with, and no VM talks with itself");
    }
  }

  bool letsTwoTalk(const Rule& segment) const {
    auto all = vmsOf(segment.promiscuous);
    all.add(vmsOf(segment.isolated));
    bool together = false;
    for (auto& community : segment.communities) {
      auto members = vmsOf(community.members);
      together |= members.more;
      all.add(members);
    }
    return together || (!segment.promiscuous.empty() && all.more);
  }
};

}  // namespace

void checkDocument(const Document& document, int64_t now, Problems& problems) {
  Checker(document, now, problems).check();
}

}  // namespace postern::policy
