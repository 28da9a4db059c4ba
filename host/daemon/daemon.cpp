#include "host/daemon/daemon.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "host/log/log.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

// Of a path in an event.
constexpr size_t MAX_SHOWN_PATH_BYTES = 200;

policy::Vm policyVm(const VmRecord& record, kj::Vector<kj::StringPtr>& tags) {
  for (auto& tag : record.tags) tags.add(tag);
  return {record.name, tags};
}

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

}  // namespace

struct Daemon::VsockDoor {
  kj::Own<Listener> listener;
  Doorkeeper doorkeeper;
  kj::Promise<void> serving = nullptr;

  VsockDoor(kj::Own<Listener> l, Admission& admission, const kj::MonotonicClock& clock, PickVm pickVm)
      : listener(kj::mv(l)), doorkeeper(*listener, admission, clock, kj::mv(pickVm)) {}
};

Daemon::Daemon(const Paths& paths, Parts parts, kj::AsyncIoContext& io)
    : paths(paths),
      io(io),
      port(io.unixEventPort),
      time(io.unixEventPort.getTimer()),
      config(kj::mv(parts.config)),
      rollback(rollbackOf(config)),
      sessionProgram(kj::mv(parts.sessionProgram)),
      registry(kj::mv(parts.registry)),
      audit(kj::mv(parts.audit)),
      policyStore(paths.policyFolder, paths.grantsFolder),
      callers(time),
      grants(port),
      admission(time),
      board(paths.board, time.now(), BoardWriter::DEFAULT_CAPACITY, parts.group),
      denials(time, 200, 60),
      strangers(time, 5, 1),
      unknownGrants(time, 200, 60),
      counted(time),
      lookForExpired(time.now()),
      lookedUntil(wallNow()),
      tasks(*this),
      ticking(nullptr) {
  KJ_IF_MAYBE (lines, policyStore.reload()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "policy-error", line);
    KJ_FAIL_REQUIRE("the policy has errors; posternd does not start without the one that was meant");
  }
  for (auto& warning : policyStore.warnings()) logEvent(LogLevel::WARNING, "policy-warning", warning);
  registry->forEach([this](const VmRecord& record) { startVm(record); });
  openDoors();
  ticking = tickForEver().eagerlyEvaluate(
      [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "tick-failed", e.getDescription()); });
  record("posternd", "", "posternd.start", "", "done");
}

Daemon::~Daemon() noexcept(false) {}

// VMs --------------------------------------------------------------------------------------------------------------

Vm::Environment Daemon::vmEnvironment() {
  return {port,           *io.lowLevelProvider,
          sessionProgram, paths.sessionFolder,
          *registry,      admission,
          board,          random,
          *this,          config,
          rollback};
}

void Daemon::startVm(const VmRecord& record) {
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

kj::Promise<kj::Maybe<FileError>> Daemon::removeVm(kj::StringPtr name) {
  auto vm = kj::mv(KJ_REQUIRE_NONNULL(vms.find(name)));
  vms.erase(name);
  leaving.insert(kj::str(name));
  grants.cutUnless([name](const GrantEntry& grant) { return grant.vm != name; });
  auto& reference = *vm;
  return reference.stop()
      .catch_([](kj::Exception&&) {})
      .then([this, name = kj::str(name), vm = kj::mv(vm)]() mutable -> kj::Maybe<FileError> {
        vm = nullptr;
        leaving.eraseMatch(name);
        KJ_IF_MAYBE (error, registry->remove(name)) return kj::mv(*error);
        for (auto ending : {".sock", ".pid"}) {
          KJ_IF_MAYBE (error, removeFile(kj::str(paths.sessionFolder, '/', name, ending))) return kj::mv(*error);
        }
        tellEvent(name, "removed", kj::str("its keys are forgotten"));
        return nullptr;
      });
}

kj::Maybe<kj::String> Daemon::whyNotYet(kj::StringPtr name) const {
  if (leaving.find(name) == nullptr) return nullptr;
  return kj::str("the VM ", name, " that there was is still being removed; try again in a few seconds");
}

kj::Promise<void> Daemon::stopSessions() {
  kj::Vector<kj::Promise<void>> all;
  for (auto& entry : vms) all.add(entry.value->stop().catch_([](kj::Exception&&) {}));
  return kj::joinPromises(all.releaseAsArray());
}

// vsock ------------------------------------------------------------------------------------------------------------

kj::Maybe<kj::String> Daemon::vmOfCid(uint32_t cid) const {
  for (auto& entry : vms) {
    auto endpoint = entry.value->record().endpoint();
    KJ_IF_MAYBE (vsock, endpoint.tryGet<VsockEndpoint>()) {
      if (vsock->cid == cid) return kj::str(entry.key);
    }
  }
  return nullptr;
}

void Daemon::openDoors() {
  for (auto& entry : vms) {
    auto endpoint = entry.value->record().endpoint();
    KJ_IF_MAYBE (vsock, endpoint.tryGet<VsockEndpoint>()) {
      if (doors.find(vsock->port) != nullptr) continue;
      auto listening = listenOn(port, time, Endpoint(VsockEndpoint{CID_ANY, vsock->port}));
      KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
        logEvent(LogLevel::ERROR, "listen-failed", error->text, entry.key);
        tellEvent(entry.key, "trouble", kj::str(error->text));
        continue;
      }
      auto pick = [this](const PeerAddress& peer) -> kj::Maybe<kj::String> {
        KJ_IF_MAYBE (address, peer.tryGet<VsockPeer>()) return vmOfCid(address->cid);
        return nullptr;
      };
      auto door = kj::heap<VsockDoor>(kj::mv(listening.get<kj::Own<Listener>>()), admission, time, kj::mv(pick));
      auto& reference = *door;
      door->serving = serveDoor(reference).eagerlyEvaluate(
          [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "vsock-door-failed", e.getDescription()); });
      doors.insert(vsock->port, kj::mv(door));
    }
  }
}

kj::Promise<void> Daemon::serveDoor(VsockDoor& door) {
  return door.doorkeeper.next().then([this, &door](Doorkeeper::Outcome outcome) {
    KJ_SWITCH_ONEOF(outcome) {
      KJ_CASE_ONEOF(visitor, Visitor) {
        KJ_IF_MAYBE (vm, findVm(visitor.vm)) vm->visit(kj::mv(visitor));
      }
      KJ_CASE_ONEOF(turned, TurnedAway) {
        counted.turned(turned);
        if (turned.why.is<Stranger>()) strange(turned.peer);
      }
    }
    return serveDoor(door);
  });
}

void Daemon::strange(const PeerAddress& peer) {
  auto cid = peer.is<VsockPeer>() ? kj::str(peer.get<VsockPeer>().cid) : kj::String();
  if (strangers.take(cid) == nullptr) return;
  tellEvent("", "unknown-cid", kj::str("a connection from ", toString(peer), ", which is no VM's"));
}

// Policy -----------------------------------------------------------------------------------------------------------

FileDecision Daemon::decide(const LocalCaller& caller, const Vm& vm, kj::StringPtr call,
                            kj::Maybe<kj::StringPtr> path) {
  PolicyCaller who(caller);
  kj::Vector<kj::StringPtr> tags;
  return decideFile(policyStore.current(), {who.get(), policyVm(vm.record(), tags), call, path, wallNow()});
}

kj::Array<const capnp::word> Daemon::fileGrantsFor(const LocalCaller& caller, const Vm& vm,
                                                   kj::ArrayPtr<const kj::String> calls, kj::StringPtr path) {
  PolicyCaller who(caller);
  kj::Vector<kj::StringPtr> tags;
  return fileGrants(policyStore.current(), {who.get(), policyVm(vm.record(), tags), "", path, wallNow()}, calls);
}

policy::Decision Daemon::decideOnHost(const LocalCaller& caller, kj::StringPtr call) {
  PolicyCaller who(caller);
  return policyStore.current().decide({who.get(), policy::TheHost(), call, nullptr, wallNow()});
}

policy::Advice Daemon::advise(const LocalCaller& caller, kj::Maybe<const Vm&> vm, kj::StringPtr call,
                              kj::Maybe<kj::StringPtr> path) {
  PolicyCaller who(caller);
  kj::Vector<kj::StringPtr> tags;
  policy::Target target = policy::TheHost();
  KJ_IF_MAYBE (v, vm) target = policyVm(v->record(), tags);
  return policyStore.current().advise({who.get(), kj::mv(target), call, path, wallNow()});
}

bool Daemon::isVisible(const LocalCaller& caller, const Vm& vm) {
  return caller.isAdministrator || decide(caller, vm, "status.read").isGranted();
}

// T79
bool Daemon::stillAllowed(const GrantEntry& grant) {
  KJ_IF_MAYBE (vm, findVm(grant.vm)) {
    auto& granted = grant.granted;
    for (auto& call : granted.calls) {
      bool allowed = true;
      if (call.startsWith("admin.")) {
        allowed = decideOnHost(*grant.caller, call).isAllowed();
      } else if (isFileCall(call)) {
        allowed = decide(*grant.caller, *vm, call, granted.path.asPtr()).isGranted();
      } else {
        allowed = decide(*grant.caller, *vm, call).isGranted();
      }
      if (!allowed) return false;
    }
    if (granted.files.size() == 0) return true;
    // What a session decides each path by has to be what it would get now.
    auto now = fileGrantsFor(*grant.caller, *vm, granted.calls, granted.path);
    return now.asBytes() == granted.files.asBytes();
  }
  return false;
}

// Whether a rule has, since this was asked last.
bool Daemon::hasExpired() {
  auto from = (lookedUntil - kj::UNIX_EPOCH) / kj::SECONDS;
  lookedUntil = wallNow();
  auto to = (lookedUntil - kj::UNIX_EPOCH) / kj::SECONDS;
  if (to < from) return true;  // the clock was set back: whatever that means
  for (auto& rule : policyStore.current().document().rules) {
    KJ_IF_MAYBE (at, rule.expires) {
      if (from < *at && *at <= to) return true;
    }
  }
  return false;
}

void Daemon::policyChanged() {
  auto cut = grants.cutUnless([this](const GrantEntry& grant) { return stillAllowed(grant); });
  if (cut > 0) logEvent(LogLevel::INFO, "grants-cut", kj::str(cut, " connections are no longer allowed"));
}

void Daemon::reload(kj::StringPtr configPath, Presence presence) {
  auto read = readConfig(configPath, presence);
  KJ_IF_MAYBE (lines, read.tryGet<kj::Vector<kj::String>>()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "config-error", line);
  } else {
    auto& fresh = read.get<Config>();
    if (fresh.group != config.group || fresh.sessionProgram != config.sessionProgram) {
      logEvent(LogLevel::WARNING, "config-needs-restart", "group and session-program count from the next start on");
    }
    if (textOf(fresh.metricsListen) != textOf(config.metricsListen)) {
      logEvent(LogLevel::WARNING, "config-needs-restart", "[metrics] listen counts from the next start on");
    }
    config.rollback = fresh.rollback;
    config.copyLines = fresh.copyLines;
    rollback = rollbackOf(config);
    for (auto& entry : vms) entry.value->session().configure();
  }
  KJ_IF_MAYBE (lines, policyStore.reload()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "policy-error", line);
    tellEvent("", "policy-reload", kj::str("refused, the earlier policy counts: ", (*lines)[0]));
    record("posternd", "", "policy.reload", "", "failed");
    return;
  }
  for (auto& warning : policyStore.warnings()) logEvent(LogLevel::WARNING, "policy-warning", warning);
  auto hash = policy::toHex(policyStore.current().hash());
  tellEvent("", "policy-reload", kj::str("the policy is ", hash.slice(0, 16)));
  record("posternd", "", "policy.reload", "", "done");
  policyChanged();
}

// Grants -----------------------------------------------------------------------------------------------------------

kj::Promise<kj::AutoCloseFd> Daemon::introduce(Vm& vm, kj::Own<const LocalCaller> caller, Grantable granted) {
  auto pair = newSocketPair(SOCK_STREAM);
  auto id = grants.nextId();
  GrantEntry entry{id, kj::str(vm.record().name), kj::mv(granted), kj::mv(caller)};
  auto fill = [&entry, each = config.copyLines == Config::CopyLines::EACH](schema::Grant::Builder grant) {
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
    setFileGrants(grant, granted.files);
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
  return introduced.then([first = kj::mv(pair.first)]() mutable { return kj::mv(first); });
}

// Records ----------------------------------------------------------------------------------------------------------

void Daemon::record(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule, kj::StringPtr outcome,
                    kj::StringPtr path) {
  AuditEvent line;
  line.time = wallNow();
  line.who = who;
  line.vm = vm;
  line.call = call;
  line.rule = rule;
  line.outcome = outcome;
  const AuditField pathField[] = {{"path", path}};
  if (path.size() > 0) line.more = pathField;
  KJ_IF_MAYBE (error, audit->append(line)) {
    // Said once, not for each line of a full disk; the log itself counts what it had to drop.
    if (auditFailures++ == 0) logEvent(LogLevel::ERROR, "audit-failed", describe(*error));
  } else {
    auditFailures = 0;
  }
}

void Daemon::recordDecision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr path,
                            const FileDecision& decided) {
  auto who = caller.name();
  auto& decision = decided.decision;
  decided.isGranted() ? counted.allowed() : counted.denied(decision.ruleId());
  auto rule = decided.below ? ""_kj : decision.ruleId();
  auto outcome = decision.isAllowed() ? "allowed"_kj : decided.below ? "allowed below"_kj : "denied"_kj;
  if (!repeats.isFirst(time.now(), who, vm, call, rule, outcome, path)) return;
  if (decided.isGranted()) return record(who, vm, call, rule, outcome, path);
  // Anybody can be denied, as often as he likes; and the log is kept in so many files.
  KJ_IF_MAYBE (leftOut, denials.take(who)) {
    auto more = *leftOut == 0 ? kj::String() : kj::str(", and ", *leftOut, " times before that were not recorded");
    record(who, vm, call, rule, kj::str("denied", more), path);
    auto what = path.size() == 0 ? kj::str(call) : kj::str(call, " of ", printable(path, MAX_SHOWN_PATH_BYTES));
    tellEvent(vm, "denied", kj::str(who, ": ", what, ": ", decision.toString(), more));
  }
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
  line.time = wallNow();
  line.who = who;
  line.vm = name;
  line.rule = rule;
  KJ_IF_MAYBE (error, audit->append(line)) {
    if (auditFailures++ == 0) logEvent(LogLevel::ERROR, "audit-failed", describe(*error));
  }
  if (report.call.startsWith("power.")) {
    tellEvent(name, "power", kj::str(who, ": ", report.call, ": ", report.outcome));
  }
}

void Daemon::sessionLost(Vm& vm) {
  kj::StringPtr name = vm.record().name;
  grants.cutUnless([name](const GrantEntry& grant) { return grant.vm != name; });
}

void Daemon::event(Vm& vm, kj::StringPtr kind, kj::String text) {
  tellEvent(vm.record().name, kind, kj::mv(text));
}

void Daemon::tellEvent(kj::StringPtr vm, kj::StringPtr kind, kj::String text) {
  logEvent(LogLevel::INFO, kind, text, vm);
  events.add(vm, kind, kj::mv(text));
}

kj::Promise<void> Daemon::tickForEver() {
  return time.afterDelay(TICK).then([this]() {
    auto now = time.now();
    board.beat(now);
    for (auto& entry : vms) entry.value->tick(now);
    repeats.flush(now, [this](const DecisionKind& kind, uint64_t times) {
      record(kind.who, kind.vm, kind.call, kind.rule, kj::str(kind.outcome, " (", times, " more)"), kind.path);
    });
    // Rules expire without anybody doing anything.
    if (now >= lookForExpired) {
      lookForExpired = now + EXPIRY_LOOK;
      if (hasExpired() && grants.size() > 0) policyChanged();
    }
    return tickForEver();
  });
}

void Daemon::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
