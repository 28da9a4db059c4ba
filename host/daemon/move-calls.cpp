#include "host/daemon/move-calls.h"

#include "host/control/failure.h"
#include "host/daemon/caller-rights.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;

void setFailure(schema::Failure::Builder failure, const Moves::NotDone& problem) {
  host::setFailure(failure, problem.kind, problem.text);
}

// `host`: the other one's key.
void record(Daemon& daemon, kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr host,
            kj::StringPtr outcome) {
  AuditField fields[] = {{"host", host}};
  AuditEvent line;
  line.who = who;
  line.vm = vm;
  line.call = call;
  line.outcome = outcome;
  line.more = fields;
  daemon.recording().append(line);
}

}  // namespace

void tellHostKey(Daemon& daemon, HostKeyContext context) {
  auto key = daemon.moving().hostKey();
  KJ_IF_MAYBE (problem, key.tryGet<Moves::NotDone>()) {
    return setFailure(context.getResults().initFailure(), *problem);
  }
  context.getResults().setKey(key.get<kj::String>());
}

kj::Promise<void> exportVm(Daemon& daemon, kj::Own<const LocalCaller> who, ExportVmContext context) {
  auto failure = context.getResults().initFailure();
  auto name = kj::str(context.getParams().getName());
  if (!isAllowed(daemon, *who, nullptr, "admin.export", nullptr, failure)) return kj::READY_NOW;
  if (findVisible(daemon, *who, name, failure) == nullptr) return kj::READY_NOW;
  auto to = kj::str(context.getParams().getTo());
  auto sealed = daemon.exportVm(name, to).then(
      [&daemon, who = kj::mv(who), name = kj::str(name), to = kj::str(to)](Moves::Outcome<kj::String> sealed) {
        record(daemon, who->name(), name, "vm.export", to, sealed.is<kj::String>() ? "done"_kj : "failed"_kj);
        return sealed;
      });
  return daemon.seeThrough(kj::mv(sealed)).then([context](Moves::Outcome<kj::String> sealed) mutable {
    KJ_IF_MAYBE (problem, sealed.tryGet<Moves::NotDone>()) {
      return setFailure(context.getResults().getFailure(), *problem);
    }
    context.getResults().disownFailure();
    context.getResults().setSealed(sealed.get<kj::String>());
  });
}

void cancelExport(Daemon& daemon, const LocalCaller& who, CancelExportContext context) {
  auto failure = context.getResults().initFailure();
  if (!isAllowed(daemon, who, nullptr, "admin.export", nullptr, failure)) return;
  KJ_IF_MAYBE (vm, findVisible(daemon, who, context.getParams().getName(), failure)) {
    auto name = kj::str(vm->record().name);
    auto host = kj::str(vm->record().movedTo);
    auto problem = daemon.cancelExport(name);
    record(daemon, who.name(), name, "vm.export-cancel", host, problem == nullptr ? "done"_kj : "failed"_kj);
    KJ_IF_MAYBE (p, problem) return setFailure(failure, *p);
    context.getResults().disownFailure();
  }
}

void importVm(Daemon& daemon, const LocalCaller& who, ImportVmContext context) {
  auto params = context.getParams();
  auto results = context.getResults();
  auto failure = results.initFailure();
  if (!isAllowed(daemon, who, nullptr, "admin.enroll", nullptr, failure)) return;
  auto imported = daemon.importVm(
      {params.getSealed(), params.getName(), params.getFrom(), params.getTransport(), params.getGrants()});
  KJ_IF_MAYBE (problem, imported.tryGet<Moves::NotDone>()) {
    daemon.record(who.name(), "", "vm.import", "", "failed");
    return setFailure(failure, *problem);
  }
  auto& vm = imported.get<Daemon::Imported>();
  record(daemon, who.name(), vm.name, "vm.import", vm.from, "done");
  results.disownFailure();
  KJ_ASSERT_NONNULL(daemon.findVm(vm.name)).describe(results.initVm());
  results.setFrom(vm.from);
  results.setOfferedGrants(vm.offeredGrants);
  if (vm.takenGrants.size() > 0) results.setGrantFile(daemon.policy().grantFile(vm.name));
}

}  // namespace postern::host
