#include "host/session/session-process.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/log/log.h"
#include "host/session/session-process-control.h"
#include "protocol/limits.h"

namespace postern::host {

namespace {

void write(const OperationRecord& record, schema::SessionObserver::OperationParams::Builder to) {
  to.setGrant(record.grant);
  to.setCall(record.call);
  to.setOutcome(record.outcome);
  to.setMicroseconds(uint64_t(record.took / kj::MICROSECONDS));
  to.setBytes(record.bytes);
  KJ_IF_MAYBE (tally, record.files) {
    auto files = to.initFiles();
    files.setPath(record.path.asBytes());
    files.setEntry(record.entry.asBytes());
    files.setFiles(tally->files);
    files.setDirectories(tally->directories);
    files.setSentBytes(tally->sentBytes);
    files.setFailures(tally->failures);
    files.setUnchanged(tally->unchanged);
    files.setLeftOut(tally->leftOut);
    KJ_IF_MAYBE (hash, tally->hash) files.setHash(*hash);
  }
}

}  // namespace

// One caller that was introduced.
struct SessionProcess::Caller {
  unsigned& count;
  LocalRpc rpc;

  Caller(unsigned& count, kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, schema::VmCalls::Client calls,
         kj::Own<PassedSockets> passed)
      : count(count),
        rpc(provider, kj::mv(socket), kj::mv(calls), LOCAL_MESSAGE_WORDS, LOCAL_FLOW_WORDS, Descriptors::NONE,
            kj::mv(passed)) {
    ++count;
  }
  ~Caller() noexcept(false) { --count; }
};

SessionProcess::SessionProcess(kj::StringPtr vmName, VmKeys& keys, const Hub::Environment& environment,
                               kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd listeningParam)
    : vmName(kj::str(vmName)),
      port(environment.port),
      provider(provider),
      timer(environment.session.timer),
      listening(kj::mv(listeningParam)),
      listeningObserver(port, listening, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      limits(timer),
      transfers(limits),
      channels({port, timer, environment.session.random, kj::systemPreciseCalendarClock()}, limits),
      questions(channels,
                [this](uint64_t id, kj::StringPtr to, kj::StringPtr service,
                       ServiceQuestions::Entrance::Client entrance) { return ask(id, to, service, kj::mv(entrance)); }),
      hub(keys, *this, environment),
      callers(kj::heap<kj::TaskSet>(*this)),
      ended(nullptr),
      tasks(*this) {
  auto end = kj::newPromiseAndFulfiller<void>();
  endFulfiller = kj::mv(end.fulfiller);
  ended = kj::mv(end.promise);
}

SessionProcess::~SessionProcess() noexcept(false) {
  attached = nullptr;  // destroyed before the hub, which may have something to say
  channels.posternd().detach();
}

kj::Promise<void> SessionProcess::run() {
  abandonment = timer.afterDelay(ABANDONED).then([this]() { abandoned(); }).eagerlyEvaluate(nullptr);
  return acceptDaemons().exclusiveJoin(kj::mv(ended)).then([this]() {
    // What callers have under way is cancelled in the turns that follow, and told to nobody.
    attached = nullptr;
    channels.posternd().detach();
    channels.cutAll();
    callers = kj::heap<kj::TaskSet>(*this);
    earlierCallers.clear();
    return kj::evalLast([]() {});
  });
}

void SessionProcess::end() {
  tasks.add(hub.close().then([this]() { endFulfiller->fulfill(); }));
}

kj::Promise<void> SessionProcess::acceptDaemons() {
  for (;;) {
    int fd = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) break;
    kj::AutoCloseFd socket(fd);
    // Only this user's processes: the folder says so, too.
    if (localPeerOf(socket).uid == geteuid()) serveDaemon(kj::mv(socket));
  }
  return listeningObserver.whenBecomesReadable().then([this]() { return acceptDaemons(); });
}

void SessionProcess::serveDaemon(kj::AutoCloseFd socket) {
  auto control = kj::heap<Control>(*this);
  auto daemon = kj::heap<Daemon>(*control);
  auto& reference = *daemon;
  control->daemon = reference;
  // Links may be of vsock or a serial device.
  daemon->rpc = kj::heap<LocalRpc>(provider, kj::mv(socket), kj::mv(control), SESSION_MESSAGE_WORDS, LOCAL_FLOW_WORDS,
                                   Descriptors::ANY);
  auto over = KJ_ASSERT_NONNULL(daemon->rpc)->onDisconnect().then([this, &reference]() { daemonLost(reference); });
  tasks.add(over.attach(kj::mv(daemon)));
}

void SessionProcess::attachedNow(Daemon& daemon) {
  bool isAnother = true;
  KJ_IF_MAYBE (current, attached) isAnother = current != &daemon;
  attached = daemon;
  KJ_IF_MAYBE (observer, daemon.observer) channels.posternd().attach(*observer);
  if (isAnother) {
    unanswered = 0;
    // This posternd cannot cut what another one has granted, and its policy may be another: they have as long as if
    // there were none.
    if (callerCount > 0) {
      earlierCallers.add(timer.afterDelay(ABANDONED).attach(kj::mv(callers)).eagerlyEvaluate(nullptr));
      callers = kj::heap<kj::TaskSet>(*this);
    }
  }
  abandonment = nullptr;
  auto waiting = kj::mv(kept);
  kept.clear();
  for (auto& event : waiting) send(event);
}

void SessionProcess::daemonLost(Daemon& daemon) {
  KJ_IF_MAYBE (current, attached) {
    if (current != &daemon) return;
    attached = nullptr;
    channels.posternd().detach();
    unanswered = 0;
    logEvent(LogLevel::WARNING, "posternd-lost", "posternd is gone; the guest stays connected", vmName);
    abandonment = timer.afterDelay(ABANDONED).then([this]() { abandoned(); }).eagerlyEvaluate(nullptr);
  }
}

void SessionProcess::abandoned() {
  if (isIdle()) return;
  logEvent(LogLevel::WARNING, "grants-ended", "posternd stayed away; what it granted ends", vmName);
  channels.cutAll();
  callers = kj::heap<kj::TaskSet>(*this);
  earlierCallers.clear();
}

void SessionProcess::introduce(kj::AutoCloseFd socket, schema::Grant::Reader grant, PassedWithGrant passed) {
  KJ_REQUIRE(callerCount < MAX_CALLERS, "too many callers of one VM");
  auto sockets = kj::addRef(*passed.sockets);
  auto calls = newVmCalls({hub, vmName, transfers, channels, *this}, grant, kj::mv(passed));
  auto caller = kj::heap<Caller>(callerCount, provider, kj::mv(socket), kj::mv(calls), kj::mv(sockets));
  auto over = caller->rpc.onDisconnect();
  callers->add(over.attach(kj::mv(caller)));
}

kj::Maybe<kj::Promise<ServiceQuestions::Answer>> SessionProcess::ask(uint64_t id, kj::StringPtr to,
                                                                     kj::StringPtr service,
                                                                     ServiceQuestions::Entrance::Client entrance) {
  KJ_IF_MAYBE (daemon, attached) {
    KJ_IF_MAYBE (observer, daemon->observer) {
      auto request = observer->connectRequest();
      request.setId(id);
      request.setTo(to);
      request.setService(service);
      request.setEntrance(kj::mv(entrance));
      return request.send().then([](ServiceQuestions::Answer answer) { return answer; });
    }
  }
  return nullptr;
}

void SessionProcess::fill(schema::SessionState::Builder state) {
  auto& keys = hub.vmKeys();
  state.setEnrolled(keys.isEnrolled());
  state.setOfferPending(keys.isOfferOut());
  state.setInherited(keys.isInherited());
  state.setHostFingerprint(keys.hostFingerprint());
  state.setGuestFingerprint(keys.guestFingerprint());
  state.setSessions(hub.sessionsMade());
  KJ_IF_MAYBE (guest, hub.connected()) {
    state.setConnected(true);
    state.setPeer(guest->peer());
  } else if (hub.sessionsMade() > 0) {
    state.setAbsence(schema::SessionState::Absence::LOST);
    KJ_IF_MAYBE (why, hub.lastGoodbye()) {
      state.setAbsence(schema::SessionState::Absence::SAID_GOODBYE);
      state.setGoodbye(static_cast<uint16_t>(*why));
    }
  }
}

void SessionProcess::stateChanged() {
  stateIsNews = true;
  tellState();
}

// One at a time: a guest that comes and goes faster than posternd listens costs no memory.
void SessionProcess::tellState() {
  if (!stateIsNews || tellingState) return;
  KJ_IF_MAYBE (daemon, attached) {
    KJ_IF_MAYBE (observer, daemon->observer) {
      auto request = observer->stateChangedRequest();
      fill(request.initState());
      stateIsNews = false;
      tellingState = true;
      tasks.add(request.send().then([](auto) {}, [](kj::Exception&&) {}).then([this]() {
        tellingState = false;
        tellState();
      }));
    }
  }
}

void SessionProcess::event(Hub::EventKind kind, kj::StringPtr text, uint16_t code) {
  KeptEvent event{kind, kj::str(text), code, hub.sessionsMade()};
  if (attached != nullptr) return send(event);  // posternd logs it
  logEvent(kind == Hub::EventKind::TROUBLE ? LogLevel::ERROR : LogLevel::INFO, "guest", text, vmName);
  if (kept.size() == MAX_KEPT_EVENTS) {
    kept.pop_front();
    ++eventsDropped;
  }
  kept.push_back(kj::mv(event));
}

void SessionProcess::send(const KeptEvent& event) {
  if (unanswered >= MAX_UNANSWERED) {
    ++eventsDropped;
    return;
  }
  KJ_IF_MAYBE (daemon, attached) {
    KJ_IF_MAYBE (observer, daemon->observer) {
      auto request = observer->eventRequest();
      request.setKind(event.kind);
      request.setText(event.text);
      request.setCode(event.code);
      request.setSession(event.session);
      ++unanswered;
      tasks.add(request.send().then([this](auto) { answered(); }, [this](kj::Exception&&) { answered(); }));
    }
  }
}

void SessionProcess::answered() {
  if (unanswered > 0) --unanswered;
}

void SessionProcess::heartbeat(const Report& report) {
  KJ_IF_MAYBE (daemon, attached) {
    if (daemon->reports == nullptr) return;
    kj::byte bytes[REPORT_BYTES];
    writeReport(report, kj::arrayPtr(bytes, sizeof(bytes)));
    // A full pair means that posternd is behind: it will see the next one.
    (void)::send(daemon->reports, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

// T80
bool SessionProcess::operation(const OperationRecord& record) {
  bool isFile = record.entry.size() > 0;
  if (isFile && (unanswered >= MAX_UNANSWERED / 2 || !fileLines.tryTake(1, timer.now()))) return false;
  if (unanswered >= MAX_UNANSWERED) {
    ++eventsDropped;
    return false;
  }
  KJ_IF_MAYBE (daemon, attached) {
    KJ_IF_MAYBE (observer, daemon->observer) {
      auto request = observer->operationRequest();
      write(record, request);
      ++unanswered;
      tasks.add(request.send().then([this](auto) { answered(); }, [this](kj::Exception&&) { answered(); }));
      return true;
    }
  }
  return false;
}

void SessionProcess::pinged(kj::Maybe<kj::Duration> took) {
  KJ_IF_MAYBE (t, took) {
    pings.answered(*t);
  } else {
    pings.failed();
  }
  if (pingsWait) return;
  pingsWait = true;
  tasks.add(timer.afterDelay(PINGS_TOLD_EVERY).then([this]() {
    pingsWait = false;
    tellPings();
  }));
}

// Without a posternd they are kept, and told after the next ping that comes when there is one.
void SessionProcess::tellPings() {
  if (unanswered >= MAX_UNANSWERED) return;
  KJ_IF_MAYBE (daemon, attached) {
    KJ_IF_MAYBE (observer, daemon->observer) {
      auto request = observer->pingsRequest();
      pings.write(request);
      pings = PingTally();
      ++unanswered;
      tasks.add(request.send().then([this](auto) { answered(); }, [this](kj::Exception&&) { answered(); }));
    }
  }
}

void SessionProcess::taskFailed(kj::Exception&& exception) {
  // A posternd that went away fails what was on its way to it.
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription(), vmName);
}

}  // namespace postern::host
