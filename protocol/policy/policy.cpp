#include "protocol/policy/policy.h"

#include <kj/debug.h>

#include <algorithm>

#include "protocol/policy/canonical.h"
#include "protocol/policy/index.h"

namespace postern::policy {

namespace {

const Limits NO_LIMITS;

PartyKind kindOf(const Caller& caller) {
  return caller.is<Vm>() ? PartyKind::VM : PartyKind::HOST;
}
PartyKind kindOf(const Target& target) {
  return target.is<Vm>() ? PartyKind::VM : PartyKind::HOST;
}

int64_t secondsOf(kj::Date date) {
  return (date - kj::UNIX_EPOCH) / kj::SECONDS;
}

bool matchesPath(const Rule& rule, const Request& request) {
  if (rule.paths.empty()) return true;
  KJ_IF_MAYBE (path, request.path) {
    for (auto& glob : rule.paths) {
      if (glob.matches(*path)) return true;
    }
  }
  return false;
}

bool hasGoodPath(CallFamily family, const Request& request) {
  KJ_IF_MAYBE (path, request.path) return hasPath(family) && isCanonicalPath(*path);
  return !hasPath(family);
}

Document sortedById(Document&& document) {
  auto byId = [](const Rule& a, const Rule& b) { return a.id < b.id; };
  std::sort(document.rules.begin(), document.rules.end(), byId);
  return kj::mv(document);
}

}  // namespace

bool isSameVm(const Caller& caller, const Target& target) {
  KJ_IF_MAYBE (from, caller.tryGet<Vm>()) {
    KJ_IF_MAYBE (to, target.tryGet<Vm>()) return from->name.size() > 0 && from->name == to->name;
  }
  return false;
}

kj::StringPtr word(Reason reason) {
  switch (reason) {
    case Reason::RULE:
      return "rule";
    case Reason::SEGMENT:
      return "segment";
    case Reason::ADMINISTRATOR:
      return "administrator";
    case Reason::UNKNOWN_CALL:
      return "unknown-call";
    case Reason::NOT_CALLABLE:
      return "not-callable";
    case Reason::ITSELF:
      return "itself";
    case Reason::BAD_PATH:
      return "bad-path";
    case Reason::BLOCKED_PORT:
      return "blocked-port";
    case Reason::DENY_RULE:
      return "deny-rule";
    case Reason::VM_TO_VM_DISABLED:
      return "vm-to-vm-disabled";
    case Reason::EXPIRED:
      return "expired";
    case Reason::NO_RULE:
      return "no-rule";
  }
  KJ_UNREACHABLE;
}

kj::StringPtr Decision::ruleId() const {
  KJ_IF_MAYBE (r, rule) return r->id;
  return "";
}

const Limits& Decision::limits() const {
  if (isAllowed()) {
    KJ_IF_MAYBE (r, rule) return r->limits;
  }
  return NO_LIMITS;
}

kj::Maybe<kj::StringPtr> Decision::runAs() const {
  if (isAllowed()) {
    KJ_IF_MAYBE (r, rule) {
      KJ_IF_MAYBE (user, r->runAs) return kj::StringPtr(*user);
    }
  }
  return nullptr;
}

kj::String Decision::toString() const {
  auto byRule = [&]() -> kj::String {
    KJ_IF_MAYBE (r, rule) return kj::str('\'', r->id, "' (", r->place, ")");
    return kj::String();
  };
  switch (reason) {
    case Reason::RULE:
      return kj::str("allowed by rule ", byRule());
    case Reason::SEGMENT:
      return kj::str("allowed by segment ", byRule());
    case Reason::ADMINISTRATOR:
      return kj::str("allowed: administrators of the host always have admin.*");
    case Reason::UNKNOWN_CALL:
      return kj::str("denied: there is no such call");
    case Reason::NOT_CALLABLE:
      return kj::str("denied: such a caller cannot make this call of such a target, whatever the policy says");
    case Reason::ITSELF:
      return kj::str("denied: a VM has no channel to itself");
    case Reason::BAD_PATH:
      return kj::str(
          "denied: the path is missing, not canonical ('..', '//', a slash at the end) or has no place in this call");
    case Reason::BLOCKED_PORT:
      KJ_IF_MAYBE (p, port) return kj::str("denied: the port of ", p->vm, " is blocked (", p->place, ")");
      KJ_UNREACHABLE;
    case Reason::DENY_RULE:
      return kj::str("denied by rule ", byRule());
    case Reason::VM_TO_VM_DISABLED:
      return kj::str("denied: vm-to-vm is disabled");
    case Reason::EXPIRED:
      return kj::str("denied: rule ", byRule(), " has expired");
    case Reason::NO_RULE:
      return kj::str("denied: no rule allows it");
  }
  KJ_UNREACHABLE;
}

kj::Own<const Policy> Policy::denyAll(Side side) {
  Document document;
  document.side = side;
  return kj::heap<const Policy>(kj::mv(document));
}

Policy::Policy(Document&& document)
    : content(sortedById(kj::mv(document))), lookup(kj::heap<Index>(content)), policyHash(hashOf(content)) {}
Policy::~Policy() noexcept(false) {}

kj::Maybe<const Port&> Policy::port(kj::StringPtr vm) const {
  return lookup->port(vm);
}

Decision Policy::decide(const Request& request) const {
  CallFamily family;
  KJ_IF_MAYBE (known, familyOf(request.call)) {
    family = *known;
  } else {
    return {Reason::UNKNOWN_CALL, nullptr, nullptr};
  }
  bool isElsewhere = content.side == Side::GUEST && request.target.is<TheHost>();
  if (isElsewhere || !isCallable(family, kindOf(request.caller), kindOf(request.target))) {
    return {Reason::NOT_CALLABLE, nullptr, nullptr};
  }
  if (content.side == Side::HOST && isSameVm(request.caller, request.target)) return {Reason::ITSELF, nullptr, nullptr};
  if (!hasGoodPath(family, request)) return {Reason::BAD_PATH, nullptr, nullptr};
  if (family == CallFamily::ADMIN && request.caller.get<HostCaller>().rights == HostCaller::Rights::ADMINISTRATOR) {
    return {Reason::ADMINISTRATOR, nullptr, nullptr};
  }
  if (family != CallFamily::STATUS) {
    KJ_IF_MAYBE (port, blockedPort(request)) return {Reason::BLOCKED_PORT, nullptr, *port};
  }
  return decideByRules(request, family);
}

kj::Maybe<const Port&> Policy::blockedPort(const Request& request) const {
  KJ_IF_MAYBE (vm, request.caller.tryGet<Vm>()) {
    KJ_IF_MAYBE (port, lookup->port(vm->name)) {
      if (port->blocked) return *port;
    }
  }
  KJ_IF_MAYBE (vm, request.target.tryGet<Vm>()) {
    KJ_IF_MAYBE (port, lookup->port(vm->name)) {
      if (port->blocked) return *port;
    }
  }
  return nullptr;
}

// T48
Decision Policy::decideByRules(const Request& request, CallFamily family) const {
  auto clauses = lookup->allClauses();
  ClauseSet matching(clauses.size());
  lookup->match(request, family, matching);
  int64_t now = secondsOf(request.now);
  kj::Maybe<const Rule&> expired;

  // The first rule of the given kind, in the order of ids, that matches in every respect.
  auto first = [&](bool deny) -> kj::Maybe<const Rule&> {
    for (size_t i = 0; i < matching.wordCount(); ++i) {
      uint64_t left = matching.word(i) & (deny ? lookup->denies().word(i) : ~lookup->denies().word(i));
      for (; left != 0; left &= left - 1) {
        const Rule& rule = *clauses[i * 64 + size_t(__builtin_ctzll(left))].rule;
        if (!matchesPath(rule, request)) continue;
        if (now < rule.expires.orDefault(INT64_MAX)) return rule;
        if (!deny && expired == nullptr) expired = rule;
      }
    }
    return nullptr;
  };

  KJ_IF_MAYBE (rule, first(true)) return {Reason::DENY_RULE, *rule, nullptr};
  if (request.caller.is<Vm>() && request.target.is<Vm>() && content.side == Side::HOST && !content.vmToVm) {
    return {Reason::VM_TO_VM_DISABLED, nullptr, nullptr};
  }
  KJ_IF_MAYBE (rule, first(false)) {
    return {rule->kind == Rule::Kind::SEGMENT ? Reason::SEGMENT : Reason::RULE, *rule, nullptr};
  }
  KJ_IF_MAYBE (rule, expired) return {Reason::EXPIRED, *rule, nullptr};
  return {Reason::NO_RULE, nullptr, nullptr};
}

}  // namespace postern::policy
