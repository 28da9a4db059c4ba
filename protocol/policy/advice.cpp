// Policy::advise(): what would allow what was denied.
#include <kj/debug.h>

#include "protocol/policy/index.h"
#include "protocol/policy/names.h"
#include "protocol/policy/policy.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

// The request's caller as a rule would name him; null if he has no name that a rule can hold.
kj::Maybe<kj::String> partyOf(const Caller& caller) {
  KJ_SWITCH_ONEOF(caller) {
    KJ_CASE_ONEOF(user, HostCaller) {
      if (isAccountName(user.user)) return kj::str("user:", user.user);
    }
    KJ_CASE_ONEOF(vm, Vm) {
      if (isVmName(vm.name)) return kj::heapString(vm.name);
    }
  }
  return nullptr;
}

kj::Maybe<kj::String> partyOf(const Target& target) {
  KJ_IF_MAYBE (vm, target.tryGet<Vm>()) {
    if (isVmName(vm->name)) return kj::heapString(vm->name);
    return nullptr;
  }
  return kj::str("host");
}

bool hasRule(const Document& document, kj::StringPtr id) {
  for (auto& rule : document.rules) {
    if (rule.id == id) return true;
  }
  return false;
}

// An id that no rule has, made of what the rule is about.
kj::String newId(const Document& document, kj::StringPtr from, kj::StringPtr call) {
  kj::Vector<char> id;
  for (char c : kj::str("allow-", from, '-', call)) {
    bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    if (id.size() < 50) id.add(fits ? c : '-');
  }
  auto base = kj::heapString(id);
  if (!hasRule(document, base)) return base;
  for (unsigned i = 2;; ++i) {
    auto numbered = kj::str(base, '-', i);
    if (!hasRule(document, numbered)) return numbered;
  }
}

// A glob that matches the path and, as far as globs can say it, nothing else; null if globs cannot say it.
kj::Maybe<kj::String> globOf(kj::StringPtr path) {
  auto glob = kj::heapString(path);
  for (char& c : glob) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f' || kj::StringPtr("*[]{}\\").findFirst(c) != nullptr) c = '?';
  }
  auto parsed = PathGlob::parse(glob);
  if (parsed.is<PathGlob>() && parsed.get<PathGlob>().matches(path)) return kj::mv(glob);
  return nullptr;
}

// An [[allow]] for exactly this request. Null if some part of it cannot be written.
kj::Maybe<kj::String> allowRule(const Document& document, const Request& request) {
  kj::String from, to, args;
  auto caller = partyOf(request.caller);
  KJ_IF_MAYBE (party, caller) {
    from = kj::str("from = ", tomlString(*party), "\n");
  } else {
    return nullptr;
  }
  if (document.side == Side::HOST) {
    KJ_IF_MAYBE (party, partyOf(request.target)) {
      to = kj::str("to = ", tomlString(*party), "\n");
    } else {
      return nullptr;
    }
  }
  KJ_IF_MAYBE (path, request.path) {
    KJ_IF_MAYBE (glob, globOf(*path)) {
      args = kj::str("args = { path = ", tomlString(*glob), " }\n");
    } else {
      return nullptr;
    }
  }
  auto id = newId(document, KJ_ASSERT_NONNULL(caller), request.call);
  return kj::str("[[allow]]\nid = ", tomlString(id), "\n", from, to, "call = ", tomlString(request.call), "\n", args);
}

}  // namespace

Advice Policy::advise(const Request& request) const {
  auto decision = decide(request);
  auto at = [&]() { return KJ_ASSERT_NONNULL(decision.rule).place; };
  switch (decision.reason) {
    case Reason::RULE:
    case Reason::SEGMENT:
    case Reason::ADMINISTRATOR:
      return {kj::str("nothing to do: it is allowed"), nullptr};
    case Reason::UNKNOWN_CALL: {
      auto parsed = parseCallPattern(request.call);
      KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) return {kj::mv(*wrong), nullptr};
      return {kj::str("ask for one call; ", quote(request.call), " is a pattern of several"), nullptr};
    }
    case Reason::NOT_CALLABLE:
      return {
          kj::str("no policy can allow this; callers on the host call VMs, and the host for admin.* alone; VMs call "
                  "service.* alone"),
          nullptr};
    case Reason::ITSELF:
      return {kj::str("no policy can allow this; programs of one guest reach each other without Postern"), nullptr};
    case Reason::BAD_PATH:
      return {kj::str("ask for an absolute path without '.', '..', '//' and a slash at the end, and for file.* alone"),
              nullptr};
    case Reason::BLOCKED_PORT: {
      auto& port = KJ_ASSERT_NONNULL(decision.port);
      return {kj::str("remove 'blocked = true' of [port.", port.vm, "] at ", port.place), nullptr};
    }
    case Reason::DENY_RULE:
      return {kj::str("narrow or remove the [[deny]] '", decision.ruleId(), "' at ", at(), "; no rule overrules it"),
              nullptr};
    case Reason::VM_TO_VM_DISABLED:
      return adviseVmToVm(request);
    case Reason::EXPIRED:
      return {kj::str("renew rule '", decision.ruleId(), "' at ", at(), ", or add a rule"),
              allowRule(content, request)};
    case Reason::NO_RULE:
      break;
  }
  auto toml = allowRule(content, request);
  if (toml == nullptr)
    return {kj::str("add a rule; this caller, target or path has no name that a rule can hold by itself"), nullptr};
  return {kj::str("add this rule, or a wider one, to the policy"), kj::mv(toml)};
}

Advice Policy::adviseVmToVm(const Request& request) const {
  // Would a rule allow it, were the switch on?
  bool allowed = false;
  ClauseSet matching(lookup->allClauses().size());
  lookup->match(request, CallFamily::SERVICE, matching);
  int64_t now = (request.now - kj::UNIX_EPOCH) / kj::SECONDS;
  for (size_t i = 0; i < lookup->allClauses().size(); ++i) {
    auto& clause = lookup->allClauses()[i];
    allowed |= matching.contains(i) && !clause.isDeny && now < clause.rule->expires.orDefault(INT64_MAX);
  }
  kj::String rule;
  if (!allowed) {
    KJ_IF_MAYBE (toml, allowRule(content, request)) {
      rule = kj::str("\n", *toml);
    } else {
      return {kj::str("name both VMs in a rule, and enable vm-to-vm"), nullptr};
    }
  }
  KJ_IF_MAYBE (place, content.vmToVmPlace) {
    if (allowed) return {kj::str("write vm-to-vm = \"enabled\" at ", *place), nullptr};
    return {kj::str("write vm-to-vm = \"enabled\" at ", *place, ", and add an [[allow]] for it"), nullptr};
  }
  return {kj::str("vm-to-vm is off unless the policy enables it; put this before the first table of a file"),
          kj::str("vm-to-vm = \"enabled\"\n", rule)};
}

}  // namespace postern::policy
