#include "host/daemon/daemon.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "host/daemon/build-id.h"
#include "host/daemon/policy-limits.h"
#include "host/daemon/service-grants.h"
#include "host/log/log.h"

namespace postern::host {

namespace {

schema::Rollback rollbackOf(const Config& config) {
  return config.rollback == Config::Rollback::DENY ? schema::Rollback::DENY : schema::Rollback::ALLOW;
}

kj::String textOf(const kj::Maybe<LocalAddress>& address) {
  KJ_IF_MAYBE (a, address) return kj::str(*a);
  return kj::String();
}

kj::Date wallNow() {
  return kj::systemPreciseCalendarClock().now();
}

// As rules have it.
int64_t secondOf(kj::Date date) {
  return (date - kj::UNIX_EPOCH) / kj::SECONDS;
}

}  // namespace

Daemon::Daemon(const Paths& paths, Parts parts, kj::AsyncIoContext& io)
    : paths(paths),
      io(io),
      port(io.unixEventPort),
      time(io.unixEventPort.getTimer()),
      config(kj::mv(parts.config)),
      rollback(rollbackOf(config)),
      sessionProgram(kj::mv(parts.sessionProgram)),
      sessionBuild(buildIdOf(sessionProgram)),
      registry(kj::mv(parts.registry)),
      records(time, kj::mv(parts.audit)),
      policyStore(paths.policyFolder, paths.grantsFolder),
      moves(*registry, policyStore, paths.transferKey, random),
      deciding(policyStore),
      callers(time),
      grants(port),
      channels({port, deciding, records, grants},
               [this](kj::StringPtr name) { return findVm(name).map([](Vm& vm) -> ChannelVm& { return vm; }); }),
      admission(time),
      doors(port, admission, *this),
      libvirt(port, paths.libvirtSocket),
      board(paths.board, time.now(), BoardWriter::DEFAULT_CAPACITY, parts.group),
      renewal(time.now()),
      unknownGrants(time, 200, 60),
      counted(time),
      decidedAt(wallNow()),
      tasks(*this),
      ticking(nullptr),
      expiring(nullptr) {
  records.setOnFailure(config.onAuditFailure);
  KJ_IF_MAYBE (lines, policyStore.reload()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "policy-error", line);
    KJ_FAIL_REQUIRE("the policy has errors; posternd does not start without the one that was meant");
  }
  for (auto& warning : policyStore.warnings()) logEvent(LogLevel::WARNING, "policy-warning", warning);
  channels.hostServices().set(kj::mv(config.services));
  registry->forEach([this](const VmRecord& record) { startVm(record); });
  openDoors();
  ticking = tickForEver().eagerlyEvaluate(
      [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "tick-failed", e.getDescription()); });
  watchExpiry();
  record("posternd", "", "posternd.start", "", "done");
}

Daemon::~Daemon() noexcept(false) {}

// VMs --------------------------------------------------------------------------------------------------------------

Vm::Environment Daemon::vmEnvironment() {
  return {port,
          *io.lowLevelProvider,
          sessionProgram,
          sessionBuild,
          paths.sessionFolder,
          *registry,
          admission,
          board,
          random,
          *this,
          config,
          rollback,
          channels,
          deciding,
          libvirt};
}

void Daemon::startVm(const VmRecord& record) {
  deciding.setBlocked(record.name, record.blocked);
  vms.insert(kj::str(record.name), kj::heap<Vm>(record.clone(), vmEnvironment()));
}

kj::Maybe<Vm&> Daemon::findVm(kj::StringPtr name) {
  KJ_IF_MAYBE (vm, vms.find(name)) return **vm;
  return nullptr;
}

kj::Vector<Vm*> Daemon::allVms() {
  kj::Vector<Vm*> all;
  for (auto& entry : vms) all.add(entry.value.get());
  return all;
}

kj::Maybe<FileError> Daemon::addVm(VmRecord record) {
  auto name = kj::str(record.name);
  KJ_IF_MAYBE (error, registry->put(kj::mv(record))) return kj::mv(*error);
  startVm(KJ_ASSERT_NONNULL(registry->find(name)));
  openDoors();
  tellEvent(name, "added", kj::str("registered"));
  return nullptr;
}

kj::Maybe<FileError> Daemon::changeVm(VmRecord record) {
  auto name = kj::str(record.name);
  KJ_IF_MAYBE (error, registry->put(kj::mv(record))) return kj::mv(*error);
  KJ_ASSERT_NONNULL(findVm(name)).change(KJ_ASSERT_NONNULL(registry->find(name)).clone());
  openDoors();
  policyChanged();  // tags may have changed
  return nullptr;
}

// Ends all that there is of it; its name stays taken.
kj::Promise<void> Daemon::takeDown(kj::StringPtr name, kj::StringPtr why) {
  channels.cutAllOf(name, why);  // while its session can be asked
  channels.forget(name);
  auto vm = kj::mv(KJ_REQUIRE_NONNULL(vms.find(name)));
  leaving.insert(kj::str(name));
  grants.cutUnless([name](const GrantEntry& grant) { return grant.vm != name; });
  vms.erase(name);
  auto& reference = *vm;
  return reference.stop().catch_([](kj::Exception&&) {}).attach(kj::mv(vm));
}

kj::Promise<kj::Maybe<FileError>> Daemon::removeVm(kj::StringPtr name) {
  auto down = takeDown(name, "removed");
  return down.then([this, name = kj::str(name)]() -> kj::Maybe<FileError> {
    deciding.setBlocked(name, false);
    leaving.eraseMatch(name);
    KJ_IF_MAYBE (error, registry->remove(name)) return kj::mv(*error);
    for (auto ending : {".sock", ".pid"}) {
      KJ_IF_MAYBE (error, removeFile(kj::str(paths.sessionFolder, '/', name, ending))) return kj::mv(*error);
    }
    tellEvent(name, "removed", kj::str("its keys are forgotten"));
    return nullptr;
  });
}

void Daemon::startAnew(kj::StringPtr name) {
  vms.erase(name);
  startVm(KJ_ASSERT_NONNULL(registry->find(name)));
  openDoors();
  policyChanged();  // tags may be others
}

kj::Promise<Moves::Outcome<kj::String>> Daemon::exportVm(kj::StringPtr name, kj::StringPtr to) {
  auto& vm = KJ_REQUIRE_NONNULL(findVm(name));
  if (vm.record().isMoved()) return moves.departedBefore(vm.record(), to);
  KJ_IF_MAYBE (problem, moves.whyNotDepart(vm.record(), to)) return Moves::Outcome<kj::String>(kj::mv(*problem));
  auto down = takeDown(name, "moved");
  return down.then([this, name = kj::str(name), to = kj::str(to)]() {
    leaving.eraseMatch(name);
    auto sealed = moves.depart(KJ_ASSERT_NONNULL(registry->find(name)), to);
    startAnew(name);
    KJ_IF_MAYBE (record, registry->find(name)) {
      if (record->isMoved()) tellEvent(name, "exported", kj::str("to ", record->movedTo));
    }
    return sealed;
  });
}

kj::Maybe<Moves::NotDone> Daemon::cancelExport(kj::StringPtr name) {
  auto problem = moves.cancel(KJ_ASSERT_NONNULL(registry->find(name)));
  if (problem == nullptr) {
    startAnew(name);
    tellEvent(name, "export-cancelled", kj::str("it is here again"));
  }
  return problem;
}

Moves::Outcome<Daemon::Imported> Daemon::importVm(const Moves::Arrival& arrival) {
  auto opened = moves.open(arrival);
  KJ_IF_MAYBE (problem, opened.tryGet<Moves::NotDone>()) return kj::mv(*problem);
  auto& found = opened.get<OpenedExport>();
  KJ_IF_MAYBE (leaves, whyNotYet(found.vm.name)) return Moves::NotDone{schema::Failure::Kind::FAILED, kj::mv(*leaves)};
  Imported imported{kj::str(found.vm.name), toText(found.from), kj::str(found.vm.hostGrants), kj::String()};
  auto taken = moves.arrive(kj::mv(found), arrival);
  KJ_IF_MAYBE (problem, taken.tryGet<Moves::NotDone>()) return kj::mv(*problem);
  imported.takenGrants = kj::mv(taken.get<kj::String>());
  startAnew(imported.name);
  tellEvent(imported.name, "imported", kj::str("from ", imported.from));
  return kj::mv(imported);
}

kj::OneOf<unsigned, FileError> Daemon::blockPort(kj::StringPtr name, bool blocked) {
  auto& vm = KJ_REQUIRE_NONNULL(findVm(name));
  auto record = vm.record().clone();
  record.blocked = blocked;
  KJ_IF_MAYBE (error, registry->put(kj::mv(record))) return kj::mv(*error);
  vm.change(KJ_ASSERT_NONNULL(registry->find(name)).clone());
  deciding.setBlocked(name, blocked);
  auto cut = cutWhatIsForbidden();
  vm.showPort();
  tellEvent(name, blocked ? "port-blocked"_kj : "port-unblocked"_kj, kj::str("by hand; ", cut, " cut"));
  return cut;
}

kj::Maybe<kj::String> Daemon::whyNotYet(kj::StringPtr name) const {
  if (leaving.find(name) == nullptr) return nullptr;
  return kj::str("the VM ", name, " that there was is still being removed or moved; try again in a few seconds");
}

kj::Promise<void> Daemon::stopSessions() {
  kj::Vector<kj::Promise<void>> all;
  for (auto& entry : vms) all.add(entry.value->stop().catch_([](kj::Exception&&) {}));
  return kj::joinPromises(all.releaseAsArray());
}

void Daemon::openDoors() {
  for (auto& entry : vms) vsockChanged(*entry.value);
}

void Daemon::vsockChanged(Vm& vm) {
  KJ_IF_MAYBE (vsock, vm.vsock()) doors.open(vsock->port, vm.record().name);
}

kj::Maybe<kj::String> Daemon::vmOfCid(uint32_t cid) {
  for (auto& entry : vms) {
    KJ_IF_MAYBE (vsock, entry.value->vsock()) {
      if (vsock->cid == cid) return kj::str(entry.key);
    }
  }
  return nullptr;
}

void Daemon::vsockVisitor(Visitor visitor) {
  KJ_IF_MAYBE (vm, findVm(visitor.vm)) vm->visit(kj::mv(visitor));
}

void Daemon::vsockStranger(const PeerAddress& peer, uint64_t leftOut) {
  auto more = leftOut == 0 ? kj::String() : kj::str("; ", leftOut, " before it were not told");
  tellEvent("", "unknown-cid", kj::str("a connection from ", toString(peer), ", which is no VM's", more));
}

void Daemon::vsockDoorFailed(kj::StringPtr vm, kj::StringPtr text) {
  logEvent(LogLevel::ERROR, "listen-failed", text, vm);
  tellEvent(vm, "trouble", kj::str(text));
  KJ_IF_MAYBE (known, findVm(vm)) known->cannotListen(text);
}

// Policy -----------------------------------------------------------------------------------------------------------

// T79
bool Daemon::stillAllowed(const GrantEntry& grant) {
  KJ_IF_MAYBE (vm, findVm(grant.vm)) {
    auto& granted = grant.granted;
    auto& record = vm->record();
    for (auto& call : granted.calls) {
      bool allowed = true;
      if (call.startsWith("admin.")) {
        allowed = deciding.decideOnHost(*grant.caller, call).isAllowed();
      } else if (call == ANY_SERVICE) {
        allowed = deciding.decideAnyService(*grant.caller, record).isGranted();
      } else if (isFileCall(call)) {
        allowed = deciding.decide(*grant.caller, record, call, granted.path.asPtr()).isGranted();
      } else {
        auto decided = deciding.decide(*grant.caller, record, call);
        allowed = decided.isGranted() && (!isServiceCall(call) || isAsTold(granted, call, decided.decision));
      }
      if (!allowed) return false;
    }
    if (granted.files.size() == 0) return true;
    // What a session decides each path by has to be what it would get now.
    auto now = deciding.fileGrantsFor(*grant.caller, record, granted.calls, granted.path);
    return now.asBytes() == granted.files.asBytes();
  }
  return false;
}

// Whether a rule has, since all was decided.
bool Daemon::hasExpired() const {
  auto from = secondOf(decidedAt), to = secondOf(wallNow());
  if (to < from) return true;  // the clock was set back: whatever that means
  for (auto& rule : policyStore.current().document().rules) {
    KJ_IF_MAYBE (at, rule.expires) {
      if (from < *at && *at <= to) return true;
    }
  }
  return false;
}

// When hasExpired() is to be asked; null: no rule ever expires.
kj::Maybe<kj::Duration> Daemon::untilExpiry() const {
  auto now = wallNow();
  kj::Maybe<kj::Duration> pause;
  for (auto& rule : policyStore.current().document().rules) {
    KJ_IF_MAYBE (at, rule.expires) {
      auto earliest = pause.orDefault(EXPIRY_LOOK);
      bool isSoon = secondOf(decidedAt) < *at && *at <= secondOf(now + EXPIRY_LOOK);
      pause = isSoon ? kj::min(earliest, kj::UNIX_EPOCH + *at * kj::SECONDS - now) : earliest;
    }
  }
  return pause;
}

// Without anybody doing anything.
kj::Promise<void> Daemon::cutWhenRulesExpire() {
  KJ_IF_MAYBE (pause, untilExpiry()) {
    return time.afterDelay(*pause).then([this]() {
      if (hasExpired()) (void)cutWhatIsForbidden();
      return cutWhenRulesExpire();
    });
  }
  return kj::READY_NOW;
}

void Daemon::watchExpiry() {
  expiring = cutWhenRulesExpire().eagerlyEvaluate(
      [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "expiry-failed", e.getDescription()); });
}

// T114
unsigned Daemon::cutWhatIsForbidden() {
  decidedAt = wallNow();
  auto cut = grants.cutUnless([this](const GrantEntry& grant) { return stillAllowed(grant); });
  if (cut > 0) logEvent(LogLevel::INFO, "grants-cut", kj::str(cut, " connections are no longer allowed"));
  auto cutChannels = channels.recheck();
  if (cutChannels > 0)
    logEvent(LogLevel::INFO, "channels-cut", kj::str(cutChannels, " channels are no longer allowed"));
  return cut + cutChannels;
}

void Daemon::policyChanged() {
  (void)cutWhatIsForbidden();
  watchExpiry();
  auto inUse = limitsInUse();
  for (auto& entry : vms) {
    entry.value->showPort();
    sendLimits(*entry.value, inUse);
  }
}

// Who comes later brings the numbers of his rules with him.
LimitsInUse Daemon::limitsInUse() {
  LimitsInUse inUse(deciding.policy());
  grants.forEach([&](const GrantEntry& grant) { inUse.add(grant); });
  channels.living().forEach([&](const ChannelEntry& channel) { inUse.add(channel.vm, channel.rule); });
  return inUse;
}

void Daemon::sendLimits(Vm& vm, const LimitsInUse& inUse) {
  vm.session().setLimits([&](SessionClient::SetLimits limits) { inUse.write(vm.record().name, limits); });
}

void Daemon::reloadConfig(kj::StringPtr path, Presence presence) {
  auto read = readConfig(path, presence);
  KJ_IF_MAYBE (lines, read.tryGet<kj::Vector<kj::String>>()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "config-error", line);
    return;
  }
  auto& fresh = read.get<Config>();
  if (fresh.group != config.group || fresh.sessionProgram != config.sessionProgram) {
    logEvent(LogLevel::WARNING, "config-needs-restart", "group and session-program count from the next start on");
  }
  if (fresh.auditFileBytes != config.auditFileBytes || fresh.auditFiles != config.auditFiles) {
    logEvent(LogLevel::WARNING, "config-needs-restart", "[audit] file-bytes and files count from the next start on");
  }
  if (textOf(fresh.metricsListen) != textOf(config.metricsListen)) {
    logEvent(LogLevel::WARNING, "config-needs-restart", "[metrics] listen counts from the next start on");
  }
  config.rollback = fresh.rollback;
  config.copyLines = fresh.copyLines;
  config.onAuditFailure = fresh.onAuditFailure;
  records.setOnFailure(config.onAuditFailure);
  rollback = rollbackOf(config);
  channels.hostServices().set(kj::mv(fresh.services));
  for (auto& entry : vms) entry.value->session().configure();
}

void Daemon::reload(kj::StringPtr configPath, Presence presence) {
  reloadConfig(configPath, presence);
  KJ_IF_MAYBE (lines, policyStore.reload()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "policy-error", line);
    tellEvent("", "policy-reload", kj::str("refused, the earlier policy counts: ", (*lines)[0]));
    record("posternd", "", "policy.reload", "", "failed");
    (void)cutWhatIsForbidden();  // the services may be others
    return;
  }
  for (auto& warning : policyStore.warnings()) logEvent(LogLevel::WARNING, "policy-warning", warning);
  auto hash = policy::toHex(policyStore.current().hash());
  tellEvent("", "policy-reload", kj::str("the policy is ", hash.slice(0, 16)));
  record("posternd", "", "policy.reload", "", "done");
  policyChanged();
}

// Grants -----------------------------------------------------------------------------------------------------------

kj::Promise<StrangersFd> Daemon::introduce(Vm& vm, kj::Own<const LocalCaller> caller, Grantable granted) {
  auto pair = newSocketPair(SOCK_STREAM);
  auto id = grants.nextId();
  GrantEntry entry{id, kj::str(vm.record().name), kj::mv(granted), kj::mv(caller)};
  // The session may have been waited for, and the policy have changed meanwhile.
  if (!stillAllowed(entry)) return KJ_EXCEPTION(FAILED, "no longer allowed");
  auto& record = vm.record();
  auto fill = [this, &entry, &record,
               each = config.copyLines == Config::CopyLines::EACH](schema::Grant::Builder grant) {
    auto& granted = entry.granted;
    grant.setId(entry.id);
    grant.setRule(granted.rule);
    auto list = grant.initCalls(static_cast<unsigned>(granted.calls.size()));
    for (unsigned i = 0; i < list.size(); ++i) list.set(i, granted.calls[i]);
    auto user = grant.initCaller().initUser();
    user.setName(entry.caller->user);
    user.setUid(entry.caller->uid);
    auto groups = user.initGroups(static_cast<unsigned>(kj::min(entry.caller->groups.size(), size_t(64))));
    for (unsigned i = 0; i < groups.size(); ++i) groups.set(i, entry.caller->groups[i]);
    setFileGrants(grant, granted.files, deciding.policy());
    setServiceGrants(grant, entry, record, deciding, channels.mirrorSockets());
    writePortLimit(deciding.policy(), record.name, grant.initPort());
    grant.setPath(granted.path.asBytes());
    grant.setAuditEach(each);
  };
  int copied = pair.second.get();
  kj::AutoCloseFd own(kj::mv(pair.second));
  auto copy = [&]() {
    int fd;
    // Closed on exec: a session process that is started meanwhile is another VM's.
    KJ_SYSCALL(fd = fcntl(copied, F_DUPFD_CLOEXEC, 3));
    return kj::AutoCloseFd(fd);
  };
  auto introduced = vm.session().introduce(copy(), fill);
  grants.add(kj::mv(entry), own);
  return introduced.then([callers = StrangersFd(kj::mv(pair.first))]() mutable { return kj::mv(callers); });
}

// Records ----------------------------------------------------------------------------------------------------------

Records::Hindrance Daemon::recordDecision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call,
                                          kj::StringPtr path, const FileDecision& decided) {
  decided.isGranted() ? counted.allowed() : counted.denied(decided.decision.ruleId());
  auto hindrance = records.decision(caller, vm, call, path, decided);
  if (decided.isGranted()) return hindrance;
  KJ_IF_MAYBE (known, findVm(vm)) {
    auto& decision = decided.decision;
    known->port().denied(decision.reason == policy::Reason::DENY_RULE ? decision.ruleId() : word(decision.reason));
    known->showPort();
  }
  return hindrance;
}

void Daemon::operation(Vm& vm, const OperationReport& report) {
  counted.operation(report);
  auto& name = vm.record().name;
  kj::String who;
  kj::StringPtr rule;
  KJ_IF_MAYBE (entry, grants.find(report.grant)) {
    if (entry->vm == name) {
      who = entry->caller->name();
      rule = entry->granted.rule;
    }
  }
  if (who.size() == 0) {
    // It has just ended, or there was none: a session process that was taken over does not fill the log.
    if (unknownGrants.take(name) == nullptr) return;
    who = kj::str("grant:", report.grant);
  }
  AuditFields fields(report);
  AuditEvent line = fields.event();
  line.who = who;
  line.vm = name;
  line.rule = rule;
  records.append(line);
  if (report.call.startsWith("power.")) {
    tellEvent(name, "power", kj::str(who, ": ", report.call, ": ", report.outcome));
  }
}

void Daemon::sessionLost(Vm& vm) {
  kj::StringPtr name = vm.record().name;
  grants.cutUnless([name](const GrantEntry& grant) { return grant.vm != name; });
}

void Daemon::guestQuarantined(Vm& vm) {
  sessionLost(vm);
  channels.cutAllOf(vm.record().name, "quarantined");
}

void Daemon::event(Vm& vm, kj::StringPtr kind, kj::String text) {
  tellEvent(vm.record().name, kind, kj::mv(text));
}

kj::Promise<void> Daemon::tickForEver() {
  return time.afterDelay(TICK).then([this]() {
    auto now = time.now();
    board.beat(now);
    for (auto& entry : vms) entry.value->tick(now);
    records.flush(now);
    channels.tick(now);
    renewal.tick(now, vms);
    return tickForEver();
  });
}

void Daemon::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
