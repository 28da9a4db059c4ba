#include "host/daemon/vm.h"

#include <kj/debug.h>
#include <string.h>

#include "host/log/log.h"
#include "protocol/guest.capnp.h"
#include "transport/backoff.h"
#include "transport/connector.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using EventKind = schema::SessionObserver::Kind;

// After a listener could not be made, or its socket was lost.
constexpr auto LISTEN_RETRY = 5 * kj::SECONDS;

kj::StringPtr nameOf(EventKind kind) {
  switch (kind) {
    case EventKind::CONNECTED:
      return "connected";
    case EventKind::LOST:
      return "lost";
    case EventKind::GOODBYE:
      return "goodbye";
    case EventKind::BOOTED:
      return "booted";
    case EventKind::ROLLBACK:
      return "rollback";
    case EventKind::TOKEN_REUSE:
      return "token-reuse";
    case EventKind::DUPLICATE_IDENTITY:
      return "duplicate-identity";
    case EventKind::ENROLLED:
      return "enrolled";
    case EventKind::REFUSED:
      return "refused";
    case EventKind::POWER:
      return "power";
    case EventKind::TROUBLE:
      return "trouble";
  }
  return "unknown";
}

Goodbye goodbyeFrom(uint16_t untrustedCode) {
  switch (static_cast<postern::schema::Goodbye>(untrustedCode)) {
    case postern::schema::Goodbye::SHUTDOWN:
      return Goodbye::SHUTDOWN;
    case postern::schema::Goodbye::RESTART:
      return Goodbye::RESTART;
    case postern::schema::Goodbye::SUSPEND:
      return Goodbye::SUSPEND;
    case postern::schema::Goodbye::AGENT_STOPPED:
      break;
  }
  return Goodbye::AGENT_STOPPED;
}

kj::Maybe<HandshakeRefusal> refusalFrom(uint16_t untrustedCode) {
  switch (static_cast<schema::SessionObserver::Refused>(untrustedCode)) {
    case schema::SessionObserver::Refused::KEYS:
      return HandshakeRefusal::KEYS_REJECTED;
    case schema::SessionObserver::Refused::CLONED_IDENTITY:
      return HandshakeRefusal::CLONED_IDENTITY;
    case schema::SessionObserver::Refused::ROLLED_BACK:
      return HandshakeRefusal::ROLLED_BACK;
    case schema::SessionObserver::Refused::OTHER:
      break;
  }
  return nullptr;
}

board::Transport transportOf(const Endpoint& endpoint) {
  if (endpoint.is<UnixEndpoint>()) return board::TRANSPORT_UNIX;
  if (endpoint.is<HybridEndpoint>()) return board::TRANSPORT_HYBRID;
  if (endpoint.is<SerialEndpoint>() || endpoint.is<LibvirtEndpoint>()) return board::TRANSPORT_SERIAL;
  return board::TRANSPORT_VSOCK;
}

Heartbeat heartbeatOf(const Report& report) {
  return {report.sequence, int64_t(report.intervalMilliseconds) * kj::MILLISECONDS,
          int64_t(report.loopLagMicroseconds) * kj::MICROSECONDS, static_cast<GuestState>(report.condition)};
}

GuestReport guestReportOf(const Report& report, kj::TimePoint at) {
  GuestReport out;
  out.at = at;
  auto beat = heartbeatOf(report);
  out.sequence = beat.sequence;
  out.interval = beat.interval;
  out.loopLag = beat.loopLag;
  out.state = beat.state;
  for (size_t i = 0; i < 8; ++i) {
    out.bootId[i] = static_cast<kj::byte>(report.bootIdHigh >> (8 * (7 - i)));
    out.bootId[8 + i] = static_cast<kj::byte>(report.bootIdLow >> (8 * (7 - i)));
  }
  out.agentVersion = kj::str(report.agentVersion.data());
  out.uptime = int64_t(report.agentUptimeMilliseconds) * kj::MILLISECONDS;
  out.guestUptime = int64_t(report.uptimeMilliseconds) * kj::MILLISECONDS;
  for (size_t i = 0; i < 3; ++i) out.loadHundredths[i] = static_cast<uint32_t>(report.load[i]);
  out.memoryTotal = report.memoryTotalKiB * 1024;
  out.memoryAvailable = report.memoryAvailableKiB * 1024;
  out.policyHash = report.policyHash;
  return out;
}

}  // namespace

Vm::Vm(VmRecord record, const Environment& environment)
    : vmRecord(kj::mv(record)),
      environment(environment),
      timer(environment.port.getTimer()),
      health(timer.now()),
      lastVerdict(health.evaluate(timer.now())),
      tasks(*this),
      client(vmRecord.name, vmRecord.uuid, *this,
             {environment.port, environment.provider, environment.sessionProgram, environment.sessionBuild,
              environment.sessionFolder}) {
  BoardVm shown;
  shown.name = kj::str(vmRecord.name);
  shown.vm = vmRecord.uuid;
  slot = environment.board.add(shown);
  if (slot == nullptr) logEvent(LogLevel::ERROR, "board-full", "no slot on the status board", vmRecord.name);
  if (vmRecord.isMoved()) {
    // T121
    tasks.add(client.stop());  // before it has begun
    health.moved(now());
  }
  publish();
  showPort();
  startLinks();
  startQmp();
}

Vm::~Vm() noexcept(false) {
  KJ_IF_MAYBE (s, slot) environment.board.remove(*s);
}

void Vm::change(VmRecord record) {
  bool moved = record.transport != vmRecord.transport;
  bool otherQmp = record.qmp != vmRecord.qmp;
  vmRecord = kj::mv(record);
  if (moved) {
    keepsSerial = false;
    startLinks();
  }
  if (otherQmp || moved) startQmp();
  publish();
}

// Links ------------------------------------------------------------------------------------------------------------

void Vm::startLinks() {
  linking = nullptr;
  doorkeeper = nullptr;
  listener = nullptr;
  libvirtCid = nullptr;
  linkTrouble = nullptr;
  if (vmRecord.isMoved()) return;
  auto endpoint = vmRecord.endpoint();
  transport = transportOf(endpoint);
  auto failed = [this](kj::Exception&& e) {
    logEvent(LogLevel::ERROR, "link-failed", e.getDescription(), vmRecord.name);
  };
  if (endpoint.is<SerialEndpoint>() || endpoint.is<LibvirtEndpoint>()) {
    linking = kj::evalLater([this]() { return keepSerial(0 * kj::SECONDS); }).eagerlyEvaluate(failed);
  } else if (!endpoint.is<VsockEndpoint>()) {
    linking = kj::evalLater([this]() { return listen(); }).eagerlyEvaluate(failed);
  }
}

kj::Promise<void> Vm::listen() {
  auto listening = listenOn(environment.port, timer, vmRecord.endpoint());
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
    linkFailed(error->text);
    return timer.afterDelay(LISTEN_RETRY).then([this]() { return listen(); });
  }
  linkTrouble = nullptr;
  auto& made = *listener.emplace(kj::mv(listening.get<kj::Own<Listener>>()));
  doorkeeper =
      kj::heap<Doorkeeper>(made, environment.admission, timer,
                           [this](const PeerAddress&) -> kj::Maybe<kj::String> { return kj::str(vmRecord.name); });
  return receiveAll();
}

kj::Promise<void> Vm::receiveAll() {
  return KJ_ASSERT_NONNULL(doorkeeper)->next().then([this](Doorkeeper::Outcome outcome) {
    KJ_IF_MAYBE (visitor, outcome.tryGet<Visitor>()) visit(kj::mv(*visitor));
    KJ_IF_MAYBE (peer, outcome.tryGet<TurnedAway>()) environment.handler.turnedAway(*peer);
    return receiveAll();
  });
}

void Vm::visit(Visitor visitor) {
  // A session that is not there yet: the guest tries again in a moment.
  if (!client.isAttached()) return;
  auto attempt = kj::mv(visitor.attempt);
  auto& halfOpen = *attempt;
  auto done = client.link(kj::mv(visitor.connection)).then([&halfOpen](SessionClient::LinkResult result) {
    if (result.proved) halfOpen.succeeded();
  });
  auto late = timer.atTime(visitor.deadline + 1 * kj::SECONDS);
  tasks.add(done.exclusiveJoin(kj::mv(late)).attach(kj::mv(attempt)));
}

// The VMM's socket, for as long as there is one.
kj::Promise<void> Vm::keepSerial(kj::Duration pause) {
  return timer.afterDelay(pause)
      .then([this]() -> kj::Promise<bool> {
        if (!client.isAttached()) return false;
        // The pipe that an earlier posternd opened still serves.
        auto free = keepsSerial ? client.whenSerialFree() : kj::Promise<void>(kj::READY_NOW);
        return free.then([this]() { return connectSerial(); });
      })
      .catch_([](kj::Exception&&) { return true; })  // the session process went away
      .then([this, pause](bool wasConnected) {
        auto next = wasConnected ? limits::CONNECT_RETRY_FIRST : kj::min(pause * 2, limits::CONNECT_RETRY_MAX);
        return keepSerial(kj::max(next, limits::CONNECT_RETRY_FIRST));
      });
}

// Whether there was a connection, once it has ended.
kj::Promise<bool> Vm::connectSerial() {
  auto endpoint = vmRecord.endpoint();
  KJ_IF_MAYBE (libvirt, endpoint.tryGet<LibvirtEndpoint>()) return connectLibvirt(libvirt->domain);
  return connectTo(environment.port, timer, endpoint).then([this](Connected connected) -> kj::Promise<bool> {
    KJ_IF_MAYBE (error, connected.tryGet<TransportError>()) {
      linkTrouble = kj::mv(error->text);  // no event: a VM that is off has no socket
      return false;
    }
    linkTrouble = nullptr;
    keepsSerial = true;
    return client.link(kj::mv(connected.get<Connection>())).then([](auto) { return true; });
  });
}

kj::Promise<bool> Vm::connectLibvirt(kj::StringPtr domain) {
  return environment.libvirt.channel(domain).then([this](auto outcome) -> kj::Promise<bool> {
    KJ_IF_MAYBE (error, outcome.template tryGet<TransportError>()) {
      linkFailed(error->text);
      return false;
    }
    linkTrouble = nullptr;
    KJ_IF_MAYBE (connection, outcome.template tryGet<Connection>()) {
      keepsSerial = true;
      transport = board::TRANSPORT_SERIAL;
      return client.link(kj::mv(*connection)).then([](auto) { return true; });
    }
    auto& guest = outcome.template get<LibvirtDoor::GuestCid>();
    libvirtCid = guest.cid;
    transport = board::TRANSPORT_VSOCK;
    environment.handler.vsockChanged(*this);
    return guest.stopped.then([this] {
      libvirtCid = nullptr;
      return true;
    });
  });
}

// Once, however often it is tried.
void Vm::linkFailed(kj::StringPtr why) {
  if (linkTrouble == why) return;
  linkTrouble = kj::str(why);
  logEvent(LogLevel::WARNING, "link-failed", why, vmRecord.name);
  environment.handler.event(*this, "trouble", kj::str(why));
}

kj::Maybe<VsockEndpoint> Vm::vsock() const {
  if (vmRecord.isMoved()) return nullptr;
  auto endpoint = vmRecord.endpoint();
  KJ_IF_MAYBE (own, endpoint.tryGet<VsockEndpoint>()) return *own;
  return libvirtCid.map([](uint32_t cid) { return VsockEndpoint{cid, DEFAULT_PORT}; });
}

// The session process ----------------------------------------------------------------------------------------------

void Vm::take(schema::SessionState::Reader state) {
  enrolled = state.getEnrolled();
  offerPending = state.getOfferPending();
  inheritedKeys = state.getInherited();
  hostFingerprint = printable(state.getHostFingerprint(), 64);
  guestFingerprint = printable(state.getGuestFingerprint(), 64);
  peer = printable(state.getPeer(), 64);
  sessions = state.getSessions();
  if (enrolled) health.configured(now());
  if (state.getConnected() && !linkUp) {
    linkUp = true;
    health.linkUp(now());
  }
}

void Vm::sessionAttached(schema::SessionState::Reader state, pid_t pid, ChannelClaims channels) {
  sessionPid = pid;
  endedSession = 0;
  linkUp = false;
  take(state);
  if (state.getConnected()) {
    endedSession = sessions > 0 ? sessions - 1 : 0;
  } else {
    endedSession = sessions;
    recall(state);
  }
  logEvent(LogLevel::INFO, "session-attached", kj::str("pid ", pid), vmRecord.name);
  environment.channels.adopt(*this, kj::mv(channels));
  environment.handler.limitsWanted(*this);
  publish();
}

// What the session process knows and this posternd has not seen. Only of a guest that it knows nothing of: after a
// reattachment of its own it knows better.
void Vm::recall(schema::SessionState::Reader state) {
  using Absence = schema::SessionState::Absence;
  if (health.evaluate(now()).reason != Reason::NEVER_SEEN) return;
  auto absence = state.getAbsence();
  if (absence != Absence::LOST && absence != Absence::SAID_GOODBYE) return;
  health.linkUp(now());
  if (absence == Absence::SAID_GOODBYE) health.goodbye(now(), goodbyeFrom(state.getGoodbye()));
  health.linkLost(now());
  healthMayHaveChanged(now());
}

void Vm::sessionState(schema::SessionState::Reader state) {
  take(state);
  publish();
}

void Vm::sessionEvent(EventKind kind, kj::StringPtr text, uint16_t code, uint64_t session) {
  counted.event(kind, code);
  switch (kind) {
    case EventKind::CONNECTED:
      linkUp = true;
      sessions = session;
      health.configured(now());
      health.linkUp(now());
      quarantined = quarantinedSession == session;
      if (quarantined) health.quarantined(now());
      break;
    case EventKind::LOST:
      linkUp = false;
      quarantined = quarantinedSession > session;
      endedSession = kj::max(endedSession, session);
      health.linkLost(now(), code == static_cast<uint16_t>(schema::SessionObserver::Loss::PROTOCOL_ERROR)
                                 ? LinkLoss::PROTOCOL_ERROR
                                 : LinkLoss::CUT);
      break;
    case EventKind::GOODBYE:
      health.goodbye(now(), goodbyeFrom(code));
      break;
    case EventKind::ROLLBACK:
      // Comes before CONNECTED of the session that it is about.
      if (environment.config.rollback == Config::Rollback::QUARANTINE) {
        quarantinedSession = session + 1;
        quarantined = true;  // from now on: other news of that session may come before CONNECTED
        environment.handler.guestQuarantined(*this);  // cuts what is under way
      }
      break;
    case EventKind::REFUSED:
      KJ_IF_MAYBE (refusal, refusalFrom(code)) health.handshakeRefused(now(), *refusal);
      break;
    case EventKind::ENROLLED:
      enrolled = true;
      offerPending = false;
      break;
    default:
      break;
  }
  environment.handler.event(*this, nameOf(kind), kj::str(text));
  healthMayHaveChanged(now());
  publish();
}

void Vm::sessionReport(const Report& latest) {
  if (latest.session <= endedSession) return;
  auto at = now();
  // The news that the session is up goes another way and may come a moment later.
  if (!linkUp) {
    linkUp = true;
    health.configured(at);
    health.linkUp(at);
  }
  report = latest;
  heartbeatAt = at;
  health.heartbeat(at, heartbeatOf(latest));
  healthMayHaveChanged(at);
  publish();
}

void Vm::sessionOperation(const OperationReport& report) {
  environment.handler.operation(*this, report);
}

void Vm::sessionGone(SessionClient::Departure departure, kj::StringPtr why) {
  bool retired = departure == SessionClient::Departure::RETIRED;
  auto kind = retired ? "session-replaced"_kj : "session-gone"_kj;
  auto text = retired ? kj::str("the VM's session process was of another build, and makes room for one of this")
                      : kj::str("the VM's session process ended: ", why);
  logEvent(retired ? LogLevel::INFO : LogLevel::WARNING, kind, text, vmRecord.name);
  sessionPid = 0;
  linkUp = false;
  if (!retired) ++counted.deadSessionProcesses;
  health.sessionProcessDied(now());
  environment.handler.sessionLost(*this);
  environment.channels.sessionGone(*this);
  environment.handler.event(*this, kind, kj::mv(text));
  healthMayHaveChanged(now());
  publish();
}

kj::OneOf<kj::AutoCloseFd, kj::String> Vm::openState() {
  auto opened = environment.registry.openState(vmRecord.name);
  KJ_IF_MAYBE (error, opened.tryGet<FileError>()) return kj::mv(error->text);
  return kj::mv(opened.get<kj::AutoCloseFd>());
}

schema::Rollback Vm::rollback() {
  return environment.rollback;
}

kj::Promise<void> Vm::stop() {
  linking = nullptr;
  doorkeeper = nullptr;
  listener = nullptr;
  return client.stop();
}

// What is shown ----------------------------------------------------------------------------------------------------

void Vm::tick(kj::TimePoint at) {
  KJ_IF_MAYBE (next, health.nextChange()) {
    if (at < *next) return;
    healthMayHaveChanged(at);
    publish();
  }
}

void Vm::healthMayHaveChanged(kj::TimePoint at) {
  lastVerdict = health.evaluate(at);
  KJ_IF_MAYBE (change, health.takeChange()) {
    if (change->before.colour == change->after.colour) return;
    environment.handler.event(*this, colourName(change->after.colour),
                              kj::str(postern::host::describe(change->after.reason)));
  }
}

void Vm::publish() {
  lastVerdict = health.evaluate(now());
  KJ_IF_MAYBE (s, slot) {
    BoardVm shown;
    shown.name = kj::str(vmRecord.name);
    shown.vm = vmRecord.uuid;
    shown.verdict = lastVerdict;
    shown.transport = transport;
    shown.linkUp = linkUp;
    shown.sessionPid = static_cast<uint32_t>(sessionPid);
    shown.sessionCount = sessions;
    KJ_IF_MAYBE (r, report) shown.report = guestReportOf(*r, KJ_ASSERT_NONNULL(heartbeatAt));
    environment.board.update(*s, shown);
  }
}

void Vm::describe(schema::VmStatus::Builder status, kj::TimePoint at) const {
  status.setName(vmRecord.name);
  status.setColour(colourName(lastVerdict.colour));
  status.setReason(reasonName(lastVerdict.reason));
  status.setSinceMilliseconds(uint64_t(kj::max(at - lastVerdict.since, 0 * kj::SECONDS) / kj::MILLISECONDS));
  status.setHeartbeatMilliseconds(-1);
  KJ_IF_MAYBE (beat, heartbeatAt) status.setHeartbeatMilliseconds((at - *beat) / kj::MILLISECONDS);
  KJ_IF_MAYBE (r, report) {
    status.setAgentVersion(r->agentVersion.data());
    status.setUptimeSeconds(r->uptimeMilliseconds / 1000);
  }
}

void Vm::describe(schema::Vm::Builder vm) const {
  auto settings = vm.initSettings();
  settings.setName(vmRecord.name);
  settings.setUuid(postern::toString(vmRecord.uuid));
  settings.setTransport(vmRecord.transport);
  auto tags = settings.initTags(static_cast<unsigned>(vmRecord.tags.size()));
  for (unsigned i = 0; i < tags.size(); ++i) tags.set(i, vmRecord.tags[i]);
  settings.setQmp(vmRecord.qmp);
  vm.setEnrolled(enrolled);
  vm.setOfferPending(offerPending);
  vm.setHostFingerprint(hostFingerprint);
  vm.setGuestFingerprint(guestFingerprint);
  vm.setSessionPid(static_cast<uint32_t>(sessionPid));
  vm.setConnected(linkUp);
  vm.setPeer(peer);
  vm.setSessions(sessions);
  vm.setQuarantined(quarantined);
  vm.setLinkTrouble(linkTrouble);
  vm.setQmpTrouble(qmpTrouble);
  vm.setInheritedKeys(inheritedKeys);
  if (vmRecord.isMoved()) {
    vm.setMovedTo(vmRecord.movedTo);
    vm.setMovedMilliseconds(vmRecord.lastMove);
  }
  describe(vm.initStatus(), timer.now());
}

void Vm::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription(), vmRecord.name);
}

}  // namespace postern::host
