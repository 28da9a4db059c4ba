#include "host/daemon/caller-rights.h"

#include <kj/debug.h>

#include "host/control/failure.h"
#include "transport/printable.h"

namespace postern::host {

using Kind = schema::Failure::Kind;

// What only takes away is done even if it cannot be recorded.
constexpr kj::StringPtr TAKES_AWAY = "admin.block"_kj;

kj::Maybe<Vm&> findVisible(Daemon& daemon, const LocalCaller& who, kj::StringPtr untrustedName,
                           schema::Failure::Builder failure) {
  KJ_IF_MAYBE (vm, daemon.findVm(untrustedName)) {
    if (daemon.decisions().isVisible(who, vm->record())) return *vm;
  }
  setFailure(failure, Kind::INVALID, kj::str("there is no VM ", printable(untrustedName, 64), "; `postern vm list`"));
  return nullptr;
}

FileDecision decide(Daemon& daemon, const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call,
                    kj::Maybe<kj::StringPtr> path) {
  auto& decisions = daemon.decisions();
  if (call.startsWith("admin.")) return {decisions.decideOnHost(who, call)};
  auto& record = KJ_ASSERT_NONNULL(vm).record();
  if (call == ANY_SERVICE) return decisions.decideAnyService(who, record);
  return decisions.decide(who, record, call, path);
}

bool isAllowed(Daemon& daemon, const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call,
               kj::Maybe<kj::StringPtr> path, kj::Maybe<schema::Failure::Builder> failure) {
  kj::StringPtr name = "";
  KJ_IF_MAYBE (v, vm) name = v->record().name;
  bool onHost = call.startsWith("admin.");
  auto decided = decide(daemon, who, vm, call, path);
  auto hindrance = daemon.recordDecision(who, name, call, path.orDefault(nullptr), decided);
  if (decided.isGranted()) {
    if (hindrance == nullptr || call == TAKES_AWAY) return true;
    KJ_IF_MAYBE (f, failure) setFailure(*f, Kind::FAILED, KJ_ASSERT_NONNULL(hindrance));
    return false;
  }
  KJ_IF_MAYBE (f, failure) {
    kj::Maybe<const VmRecord&> target;
    if (!onHost) {
      KJ_IF_MAYBE (v, vm) target = v->record();
    }
    auto advice = daemon.decisions().advise(who, target, call, path);
    auto what = kj::str(call);
    KJ_IF_MAYBE (p, path) what = kj::str(call, " of ", printable(*p, 200));
    setFailure(*f, Kind::DENIED, kj::str(what, ": ", decided.decision.toString()));
    f->setRule(decided.decision.ruleId());
    f->setLock(schema::Failure::Lock::HOST);
    KJ_IF_MAYBE (toml, advice.toml) f->setSuggestion(*toml);
  }
  return false;
}

}  // namespace postern::host
