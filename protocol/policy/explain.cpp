#include "protocol/policy/explain.h"

#include <kj/debug.h>

#include <algorithm>

#include "protocol/policy/index.h"
#include "protocol/policy/terms.h"

namespace postern::policy {

namespace {

// A caller or target beside the groups that hold him.
struct Subject {
  kj::Maybe<const HostCaller&> user;
  kj::Maybe<const Vm&> vm;  // both null: the host as a target
  GroupSet groups;
  const Index& index;

  bool is(const Party& party) const {
    switch (party.kind) {
      case Party::Kind::USER:
        KJ_IF_MAYBE (u, user) return u->user == party.name;
        return false;
      case Party::Kind::HOST_GROUP:
        KJ_IF_MAYBE (u, user) return holds(u->groups, party.name);
        return false;
      case Party::Kind::HOST:
        return vm == nullptr;
      case Party::Kind::VM:
        KJ_IF_MAYBE (v, vm) return v->name == party.name;
        return false;
      case Party::Kind::TAG:
        KJ_IF_MAYBE (v, vm) return holds(v->tags, party.name);
        return false;
      case Party::Kind::ANY:
        return vm != nullptr;
      case Party::Kind::GROUP:
        KJ_IF_MAYBE (number, index.groupNumber(party.name)) return groups.contains(*number);
        return false;
    }
    KJ_UNREACHABLE;
  }
  bool isOneOf(kj::ArrayPtr<const Party> parties) const {
    for (auto& party : parties) {
      if (is(party)) return true;
    }
    return false;
  }

  static bool holds(kj::ArrayPtr<const kj::StringPtr> names, kj::StringPtr name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
};

class Examiner {
 public:
  Examiner(const Policy& policy, const Request& request)
      : policy(policy),
        request(request),
        caller{request.caller.tryGet<HostCaller>(), request.caller.tryGet<Vm>(),
               GroupSet(policy.document().groups.size()), policy.index()},
        target{nullptr, request.target.tryGet<Vm>(), GroupSet(policy.document().groups.size()), policy.index()} {
    policy.index().groupsOf(request.caller, caller.groups);
    policy.index().groupsOf(request.target, target.groups);
  }

  // Null for a rule that has nothing to do with the request.
  kj::Maybe<Standing> examine(const Rule& rule, const Decision& decision) const {
    kj::Maybe<Standing> missing;
    unsigned misses = 0;
    auto miss = [&](Standing standing) {
      missing = standing;
      ++misses;
    };
    if (!coversCall(rule)) miss(Standing::OTHER_CALL);
    if (rule.kind == Rule::Kind::SEGMENT) {
      examineSegment(rule, miss);
    } else {
      if (!namesCaller(rule)) miss(Standing::OTHER_CALLER);
      if (policy.document().side == Side::HOST && !target.isOneOf(rule.to)) miss(Standing::OTHER_TARGET);
      if (!coversPath(rule)) miss(Standing::OTHER_PATH);
    }
    if (misses > 1) return nullptr;
    if (misses == 1) return missing;
    return standingOfMatch(rule, decision);
  }

 private:
  const Policy& policy;
  const Request& request;
  Subject caller;
  Subject target;

  bool coversCall(const Rule& rule) const {
    KJ_IF_MAYBE (family, familyOf(request.call)) {
      for (auto& call : rule.calls) {
        if (call.covers(request.call, *family)) return true;
      }
    }
    return false;
  }

  bool namesCaller(const Rule& rule) const {
    if (rule.from.empty() && policy.document().side == Side::GUEST) return caller.vm == nullptr;
    return caller.isOneOf(rule.from);
  }

  bool coversPath(const Rule& rule) const {
    if (rule.paths.empty()) return true;
    KJ_IF_MAYBE (path, request.path) {
      for (auto& glob : rule.paths) {
        if (isCanonicalPath(*path) && glob.matches(*path)) return true;
      }
    }
    return false;
  }

  template <typename Miss>
  void examineSegment(const Rule& rule, Miss&& miss) const {
    auto isMember = [&](const Subject& subject) {
      if (subject.isOneOf(rule.promiscuous) || subject.isOneOf(rule.isolated)) return true;
      for (auto& community : rule.communities) {
        if (subject.isOneOf(community.members)) return true;
      }
      return false;
    };
    bool from = isMember(caller), to = isMember(target);
    if (!from) miss(Standing::OTHER_CALLER);
    if (!to) miss(Standing::OTHER_TARGET);
    if (!from || !to || caller.isOneOf(rule.promiscuous) || target.isOneOf(rule.promiscuous)) return;
    for (auto& community : rule.communities) {
      if (caller.isOneOf(community.members) && target.isOneOf(community.members)) return;
    }
    miss(Standing::OTHER_TARGET);
  }

  Standing standingOfMatch(const Rule& rule, const Decision& decision) const {
    if (rule.expires.orDefault(INT64_MAX) <= (request.now - kj::UNIX_EPOCH) / kj::SECONDS) return Standing::EXPIRED;
    KJ_IF_MAYBE (decider, decision.rule) {
      if (decider == &rule) return Standing::DECIDES;
    }
    if (rule.kind == Rule::Kind::DENY || decision.isAllowed()) return Standing::ALSO;
    return decision.reason == Reason::VM_TO_VM_DISABLED ? Standing::VOID_VM_TO_VM : Standing::OVERRULED;
  }
};

}  // namespace

kj::StringPtr describe(Standing standing) {
  switch (standing) {
    case Standing::DECIDES:
      return "decides";
    case Standing::ALSO:
      return "matches as well";
    case Standing::OVERRULED:
      return "would allow it, but is overruled";
    case Standing::VOID_VM_TO_VM:
      return "would allow it, but is void while vm-to-vm is disabled";
    case Standing::EXPIRED:
      return "would match, but has expired";
    case Standing::OTHER_CALLER:
      return "is for other callers";
    case Standing::OTHER_TARGET:
      return "is for other targets";
    case Standing::OTHER_CALL:
      return "is for other calls";
    case Standing::OTHER_PATH:
      return "is for other paths";
  }
  KJ_UNREACHABLE;
}

kj::String RuleNote::toString() const {
  return kj::str(kindName(rule->kind), " '", rule->id, "' (", rule->place, ") ", describe(standing));
}

kj::String Explanation::toText() const {
  kj::Vector<kj::String> lines;
  lines.add(decision.toString());
  for (auto& note : notes) lines.add(kj::str("  ", note.toString()));
  if (unrelated > 0)
    lines.add(kj::str("  ", unrelated, unrelated == 1 ? " rule has" : " rules have", " nothing to do with it"));
  for (auto& term : terms) lines.add(kj::str("  ", term));
  if (!decision.isAllowed()) {
    lines.add(kj::str("to allow it: ", advice.text));
    KJ_IF_MAYBE (toml, advice.toml) lines.add(kj::str("\n", *toml));
  }
  return kj::strArray(lines, "\n");
}

Explanation explain(const Policy& policy, const Request& request) {
  Explanation out{policy.decide(request), {}, 0, policy.advise(request), {}};
  out.terms = termsOf(policy, request, out.decision);
  Examiner examiner(policy, request);
  for (auto& rule : policy.document().rules) {
    KJ_IF_MAYBE (standing, examiner.examine(rule, out.decision)) {
      out.notes.add(RuleNote{&rule, *standing});
    } else {
      ++out.unrelated;
    }
  }
  std::stable_sort(out.notes.begin(), out.notes.end(),
                   [](const RuleNote& a, const RuleNote& b) { return a.standing < b.standing; });
  return out;
}

}  // namespace postern::policy
