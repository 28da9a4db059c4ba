#include "host/daemon/decisions.h"

#include "protocol/policy/any-service.h"

namespace postern::host {

namespace {

using policy::Reason;

kj::Date wallNow() {
  return kj::systemPreciseCalendarClock().now();
}

// What was found out by rules. Anything else stands before a blocked port.
bool isByRules(Reason reason) {
  switch (reason) {
    case Reason::RULE:
    case Reason::SEGMENT:
    case Reason::DENY_RULE:
    case Reason::VM_TO_VM_DISABLED:
    case Reason::EXPIRED:
    case Reason::NO_RULE:
      return true;
    default:
      return false;
  }
}

policy::Decision blockedBy(const policy::Port& port) {
  return {Reason::BLOCKED_PORT, nullptr, port};
}

}  // namespace

PolicyVm::PolicyVm(const VmRecord& record)
    : record(record), tags(KJ_MAP(tag, record.tags)->kj::StringPtr { return tag; }) {}

void Decisions::setBlocked(kj::StringPtr vm, bool blocked) {
  if (!blocked) {
    byHand.erase(vm);
  } else if (!isBlockedByHand(vm)) {
    auto port = kj::heap<policy::Port>();
    port->vm = kj::str(vm);
    port->place = {"by hand", 0};
    port->blocked = true;
    byHand.insert(kj::str(vm), kj::mv(port));
  }
}

bool Decisions::isBlockedByPolicy(kj::StringPtr vm) const {
  KJ_IF_MAYBE (port, policy().port(vm)) return port->blocked;
  return false;
}

// T112
kj::Maybe<const policy::Port&> Decisions::findBlocked(const policy::Request& request, Reason verdict) const {
  if (!isByRules(verdict) || request.call == "status.read") return nullptr;
  KJ_IF_MAYBE (vm, request.caller.tryGet<policy::Vm>()) {
    KJ_IF_MAYBE (port, byHand.find(vm->name)) return **port;
  }
  KJ_IF_MAYBE (vm, request.target.tryGet<policy::Vm>()) {
    KJ_IF_MAYBE (port, byHand.find(vm->name)) return **port;
  }
  return nullptr;
}

policy::Decision Decisions::decide(const policy::Request& request) const {
  auto decision = policy().decide(request);
  KJ_IF_MAYBE (port, findBlocked(request, decision.reason)) return blockedBy(*port);
  return decision;
}

FileDecision Decisions::decide(const LocalCaller& caller, const VmRecord& vm, kj::StringPtr call,
                               kj::Maybe<kj::StringPtr> path) const {
  PolicyCaller who(caller);
  PolicyVm target(vm);
  policy::Request request{who.get(), target.get(), call, path, wallNow()};
  auto decided = decideFile(policy(), request);
  KJ_IF_MAYBE (port, findBlocked(request, decided.decision.reason)) return {blockedBy(*port)};
  return decided;
}

policy::Decision Decisions::decideOnHost(const LocalCaller& caller, kj::StringPtr call) const {
  PolicyCaller who(caller);
  return decide({who.get(), policy::TheHost(), call, nullptr, wallNow()});
}

policy::Decision Decisions::decideService(const VmRecord& from, kj::Maybe<const VmRecord&> to,
                                          kj::StringPtr service) const {
  auto call = kj::str(SERVICE_PREFIX, service);
  PolicyVm asking(from);
  KJ_IF_MAYBE (record, to) {
    PolicyVm target(*record);
    return decide({asking.get(), target.get(), call, nullptr, wallNow()});
  }
  return decide({asking.get(), policy::TheHost(), call, nullptr, wallNow()});
}

FileDecision Decisions::decideAnyService(const LocalCaller& caller, const VmRecord& vm) const {
  KJ_IF_MAYBE (port, byHand.find(vm.name)) return {blockedBy(**port)};
  if (isBlockedByPolicy(vm.name)) return {blockedBy(KJ_ASSERT_NONNULL(policy().port(vm.name)))};
  PolicyCaller who(caller);
  PolicyVm target(vm);
  bool may = policy::mayGrantService(policy(), who.get(), target.get(), wallNow());
  return {policy::Decision{may ? Reason::RULE : Reason::NO_RULE, nullptr, nullptr}};
}

policy::Advice Decisions::advise(const LocalCaller& caller, kj::Maybe<const VmRecord&> vm, kj::StringPtr call,
                                 kj::Maybe<kj::StringPtr> path) const {
  PolicyCaller who(caller);
  KJ_IF_MAYBE (record, vm) {
    if (isBlockedByHand(record->name)) return {kj::str("`postern channel unblock ", record->name, "`"), nullptr};
    PolicyVm target(*record);
    return policy().advise({who.get(), target.get(), call, path, wallNow()});
  }
  return policy().advise({who.get(), policy::TheHost(), call, path, wallNow()});
}

Decisions::Explained Decisions::explain(const policy::Request& request) const {
  auto explanation = policy::explain(policy(), request);
  KJ_IF_MAYBE (port, findBlocked(request, explanation.decision.reason)) {
    return {kj::str(blockedBy(*port).toString(), "\n`postern channel unblock ", port->vm, "` lifts it\n"), false};
  }
  return {explanation.toText(), explanation.decision.isAllowed()};
}

kj::Array<const capnp::word> Decisions::fileGrantsFor(const LocalCaller& caller, const VmRecord& vm,
                                                      kj::ArrayPtr<const kj::String> calls, kj::StringPtr path) const {
  PolicyCaller who(caller);
  PolicyVm target(vm);
  return fileGrants(policy(), {who.get(), target.get(), "", path, wallNow()}, calls);
}

bool Decisions::isVisible(const LocalCaller& caller, const VmRecord& vm) const {
  return caller.isAdministrator || decide(caller, vm, "status.read").isGranted();
}

}  // namespace postern::host
