#include "host/daemon/caller-rights.h"

#include <kj/debug.h>

#include "host/control/failure.h"
#include "transport/printable.h"

namespace postern::host {

using Kind = schema::Failure::Kind;

kj::Maybe<Vm&> findVisible(Daemon& daemon, const LocalCaller& who, kj::StringPtr untrustedName,
                           schema::Failure::Builder failure) {
  KJ_IF_MAYBE (vm, daemon.findVm(untrustedName)) {
    if (daemon.isVisible(who, *vm)) return *vm;
  }
  setFailure(failure, Kind::INVALID, kj::str("there is no VM ", printable(untrustedName, 64), "; `postern vm list`"));
  return nullptr;
}

bool isAllowed(Daemon& daemon, const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call,
               kj::Maybe<kj::StringPtr> path, kj::Maybe<schema::Failure::Builder> failure) {
  kj::StringPtr name = "";
  KJ_IF_MAYBE (v, vm) name = v->record().name;
  bool onHost = call.startsWith("admin.");
  auto decided =
      onHost ? FileDecision{daemon.decideOnHost(who, call)} : daemon.decide(who, KJ_ASSERT_NONNULL(vm), call, path);
  daemon.recordDecision(who, name, call, path.orDefault(nullptr), decided);
  if (decided.isGranted()) return true;
  KJ_IF_MAYBE (f, failure) {
    kj::Maybe<const Vm&> target;
    if (!onHost) {
      KJ_IF_MAYBE (v, vm) target = *v;
    }
    auto advice = daemon.advise(who, target, call, path);
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
