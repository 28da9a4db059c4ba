#include "host/daemon/session-client.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "host/daemon/patience.h"
#include "host/daemon/session-observer.h"
#include "host/daemon/session-start.h"
#include "host/log/log.h"
#include "transport/connector.h"
#include "transport/printable.h"
#include "transport/receive.h"

namespace postern::host {

namespace {

constexpr size_t MAX_VERSION_BYTES = 32;
// Lines about one reason for which no process can be started.
constexpr unsigned START_FAILURES_BURST = 1;
constexpr unsigned START_FAILURES_PER_MINUTE = 1;

}  // namespace

SessionClient::SessionClient(kj::StringPtr vmName, const VmId& vm, Handler& handler, const Environment& environment)
    : vmName(kj::str(vmName)),
      vm(vm),
      handler(handler),
      environment(environment),
      timer(environment.port.getTimer()),
      socketPath(socketPathOf({environment.sessionFolder, this->vmName, vm})),
      told(timer, TOLD_PER_SECOND, TOLD_BURST),
      channelsTold(timer, CHANNEL_TOLD_PER_SECOND, CHANNEL_TOLD_BURST),
      startFailures(timer, START_FAILURES_BURST, START_FAILURES_PER_MINUTE),
      self(kj::refcounted<Self>()),
      nextReports(timer.now()),
      lastHeard(timer.now()),
      lastEnded(kj::Promise<void>(kj::READY_NOW).fork()),
      tasks(*this),
      running(kj::evalLater([this]() { return run(); }).eagerlyEvaluate([this](kj::Exception&& e) {
        logEvent(LogLevel::ERROR, "session-supervision-failed", e.getDescription(), this->vmName);
      })) {}

SessionClient::~SessionClient() noexcept(false) {
  self->client = nullptr;
}

kj::Promise<void> SessionClient::run() {
  auto began = timer.now();
  return kj::evalNow([this]() { return runOnce(); })
      .then([]() { return kj::str("it ended"); },
            [](kj::Exception&& e) {
              return e.getType() == kj::Exception::Type::DISCONNECTED ? kj::str("it ended")
                                                                      : kj::str(e.getDescription());
            })
      .then([this, began](kj::String why) -> kj::Promise<void> {
        reset(why);
        if (stopping) return kj::READY_NOW;
        if (timer.now() - began >= LIVED) restartAfter = RESTART_FIRST;
        auto pause = restartAfter;
        restartAfter = kj::min(restartAfter * 2, RESTART_MAX);
        return timer.afterDelay(pause).then([this]() { return run(); });
      });
}

// From finding or starting the process to its end.
kj::Promise<void> SessionClient::runOnce() {
  return connect().then([this](kj::Maybe<kj::AutoCloseFd> found) -> kj::Promise<void> {
    KJ_IF_MAYBE (socket, found) {
      // Known before it answers, so that one that hangs can be ended.
      outdated = environment.build.size() > 0;
      KJ_IF_MAYBE (started, lastStartedSession(place())) {
        process = kj::heap<ProcessWatch>(environment.port, started->pid);
        outdated = outdated && started->build != environment.build;
      }
      return attach(kj::mv(*socket));
    }
    return endLastStarted().then([this]() -> kj::Promise<void> {
      if (!spawn()) return kj::READY_NOW;
      return connect().then([this](kj::Maybe<kj::AutoCloseFd> socket) {
        return attach(kj::mv(KJ_REQUIRE_NONNULL(socket, "a new session process does not listen")));
      });
    });
  });
}

// One that lives and cannot be reached, as when somebody has removed its socket: two would write one state file.
kj::Promise<void> SessionClient::endLastStarted() {
  KJ_IF_MAYBE (started, lastStartedSession(place())) {
    auto watch = kj::heap<ProcessWatch>(environment.port, started->pid);
    watch->kill();
    auto ended = watch->whenEnded();
    return ended.attach(kj::mv(watch));
  }
  return kj::READY_NOW;
}

kj::Promise<kj::Maybe<kj::AutoCloseFd>> SessionClient::connect() {
  return connectUnix(timer, TransportKind::UNIX, socketPath, ATTACH_DEADLINE)
      .then([](Connected connected) -> kj::Maybe<kj::AutoCloseFd> {
        if (connected.is<TransportError>()) return nullptr;
        return connected.get<Connection>().fd.release();
      });
}

bool SessionClient::spawn() {
  auto opened = handler.openState();
  KJ_IF_MAYBE (problem, opened.tryGet<kj::String>()) return startFailed(*problem);
  auto started = startSession(environment.program, place(), kj::mv(opened.get<kj::AutoCloseFd>()));
  KJ_IF_MAYBE (problem, started.tryGet<kj::String>()) return startFailed(*problem);
  process = kj::heap<ProcessWatch>(environment.port, started.get<pid_t>());
  outdated = false;
  return true;
}

bool SessionClient::startFailed(kj::StringPtr why) {
  KJ_IF_MAYBE (leftOut, startFailures.take(why)) {
    logEvent(LogLevel::ERROR, "session-start-failed", kj::str(why, untold(*leftOut)), vmName);
  }
  return false;
}

kj::Promise<void> SessionClient::attach(kj::AutoCloseFd socket) {
  // A session that has served long has many channels to tell of.
  auto connection = kj::heap<LocalRpc>(environment.provider, kj::mv(socket), SESSION_MESSAGE_WORDS);
  auto& reference = *connection;
  rpc = kj::mv(connection);
  auto client = reference.peer().castAs<schema::SessionControl>();
  auto pair = newSocketPair(SOCK_SEQPACKET);
  refuseDescriptors(pair.first);
  reports = kj::mv(pair.first);
  auto request = client.attachRequest();
  self = kj::refcounted<Self>();
  self->client = *this;
  request.setObserver(kj::heap<Observer>(kj::addRef(*self)));
  request.setReports(newDescriptor(kj::mv(pair.second)));
  request.setRollback(handler.rollback());
  using Answer = capnp::Response<schema::SessionControl::AttachResults>;
  return answeredWithin<Answer>(timer, ATTACH_DEADLINE, request.send())
      .then([this, &reference, client](Answer answer) mutable -> kj::Promise<void> {
        KJ_REQUIRE(answer.getVm() == capnp::Data::Reader(kj::arrayPtr(vm.bytes.data(), vm.bytes.size())),
                   "the process behind the VM's socket is another VM's");
        // What it says of itself counts only where no record of ours does.
        if (process == nullptr) {
          auto pid = static_cast<pid_t>(answer.getPid());
          KJ_REQUIRE(pid > 1 && isSessionOf(pid, place()),
                     "the process behind the VM's socket names a process that is none of ours");
          process = kj::heap<ProcessWatch>(environment.port, pid);
        }
        control = kj::mv(client);
        lastHeard = timer.now();
        reportObserver.emplace(environment.port, reports, kj::UnixEventPort::FdObserver::OBSERVE_READ);
        auto restarting = kj::newPromiseAndFulfiller<void>();
        restarter = kj::mv(restarting.fulfiller);
        handler.sessionAttached(answer.getState(), KJ_ASSERT_NONNULL(process)->pid(),
                                parseChannels(answer.getChannels()));
        for (auto& waiter : attachWaiters) waiter->fulfill();
        attachWaiters.clear();
        if (outdated) {
          auto version = printable(answer.getVersion(), MAX_VERSION_BYTES);
          logEvent(LogLevel::INFO, "session-outdated",
                   kj::str("of another build (version ", version, "); it is replaced when it is idle"), vmName);
        }
        return reference.onDisconnect()
            .exclusiveJoin(receiveReports())
            .exclusiveJoin(untilHung())
            .exclusiveJoin(kj::mv(restarting.promise))
            .exclusiveJoin(KJ_ASSERT_NONNULL(process)->whenEnded());
      });
}

kj::Promise<void> SessionClient::receiveReports() {
  if (timer.now() < nextReports) return timer.atTime(nextReports).then([this]() { return receiveReports(); });
  unsigned received = 0;
  while (received < MAX_REPORTS_AT_ONCE) {
    kj::byte bytes[REPORT_BYTES + 1];
    auto size = receiveBytes(reports, bytes);
    if (size < 0) break;
    if (size == 0) return kj::NEVER_DONE;  // the process's end shows elsewhere
    ++received;
    KJ_IF_MAYBE (report, parseReport(kj::arrayPtr(bytes, size_t(size)))) {
      lastHeard = timer.now();
      handler.sessionReport(*report);
    }
  }
  // One that never stops to report gets no more of this loop than that.
  nextReports = timer.now() + REPORT_PAUSE;
  if (received == MAX_REPORTS_AT_ONCE) return timer.atTime(nextReports).then([this]() { return receiveReports(); });
  return KJ_ASSERT_NONNULL(reportObserver).whenBecomesReadable().then([this]() { return receiveReports(); });
}

// Fails when the process has not answered.
kj::Promise<void> SessionClient::untilHung() {
  auto due = lastHeard + SILENCE;
  if (timer.now() < due) return timer.atTime(due).then([this]() { return untilHung(); });
  auto late = patience(timer, ALIVE_DEADLINE).then([this]() -> kj::Promise<void> {
    retiring = false;
    return KJ_EXCEPTION(OVERLOADED, "it hung, answered nothing, and was killed");
  });
  return KJ_ASSERT_NONNULL(control).aliveRequest().send().ignoreResult().exclusiveJoin(kj::mv(late)).then([this]() {
    lastHeard = timer.now();
    return untilHung();
  });
}

void SessionClient::reset(kj::StringPtr why) {
  bool wasAttached = control != nullptr;
  self->client = nullptr;
  control = nullptr;
  reportObserver = nullptr;
  reports = {};
  rpc = nullptr;
  // A process that lives and does not speak with us is of no use, and in the way of the next.
  KJ_IF_MAYBE (p, process) {
    (*p)->kill();
    auto ended = (*p)->whenEnded();
    lastEnded = ended.attach(kj::mv(*p)).fork();
    tasks.add(lastEnded.addBranch());
    process = nullptr;
  }
  auto departure = retiring ? Departure::RETIRED : Departure::UNEXPECTED;
  retiring = false;
  if (wasAttached) handler.sessionGone(departure, why);
}

kj::Promise<void> SessionClient::whenAttached(kj::Duration atMost) {
  if (isAttached()) return kj::READY_NOW;
  auto waiter = kj::newPromiseAndFulfiller<void>();
  attachWaiters.remove_if([](kj::Own<kj::PromiseFulfiller<void>>& waiter) { return !waiter->isWaiting(); });
  attachWaiters.push_back(kj::mv(waiter.fulfiller));
  return waiter.promise.exclusiveJoin(timer.afterDelay(atMost));
}

kj::Promise<SessionClient::LinkResult> SessionClient::link(Connection connection) {
  KJ_IF_MAYBE (c, control) {
    auto request = c->linkRequest();
    request.setTransport(static_cast<uint8_t>(connection.transport));
    request.setDescriptorKind(connection.descriptorKind == DescriptorKind::SOCKET ? 0 : 1);
    request.setPeer(toString(connection.peer));
    request.setSocket(newDescriptor(connection.fd.release()));
    return request.send().then([](auto answer) -> LinkResult {
      auto outcome = answer.getOutcome();
      return {outcome.getProved(), printable(outcome.getReason(), 256)};
    });
  }
  return KJ_EXCEPTION(DISCONNECTED, "no session process");
}

kj::Promise<void> SessionClient::whenSerialFree() {
  KJ_IF_MAYBE (c, control) return c->whenSerialFreeRequest().send().ignoreResult();
  return KJ_EXCEPTION(DISCONNECTED, "no session process");
}

void SessionClient::configure() {
  KJ_IF_MAYBE (c, control) {
    auto request = c->configureRequest();
    request.setRollback(handler.rollback());
    tasks.add(request.send().ignoreResult());
  }
}

kj::Promise<void> SessionClient::introduce(kj::AutoCloseFd socket, kj::Function<void(schema::Grant::Builder)> fill) {
  KJ_IF_MAYBE (c, control) {
    auto request = c->introduceRequest();
    request.setSocket(newDescriptor(kj::mv(socket)));
    fill(request.initGrant());
    return request.send().ignoreResult();
  }
  return KJ_EXCEPTION(DISCONNECTED, "no session process");
}

kj::Promise<schema::ServeOutcome> SessionClient::serve(ChannelVm::Serving serving) {
  KJ_IF_MAYBE (c, control) {
    auto request = c->serveRequest();
    serving.fill(request.initFlow());
    request.initCaller().setVm(serving.caller);
    request.setService(serving.service);
    request.setSocket(newDescriptor(kj::mv(serving.socket)));
    return request.send().then([](auto answer) { return answer.getOutcome(); });
  }
  return KJ_EXCEPTION(DISCONNECTED, "no session process");
}

void SessionClient::setLimits(kj::FunctionParam<void(SetLimits)> fill) {
  KJ_IF_MAYBE (c, control) {
    auto request = c->setLimitsRequest();
    fill(request);
    tasks.add(request.send().ignoreResult());
  }
}

kj::Promise<void> SessionClient::cutChannels(kj::ArrayPtr<const uint64_t> ids) {
  KJ_IF_MAYBE (c, control) {
    auto request = c->cutChannelsRequest();
    request.setIds(ids);
    return request.send().ignoreResult();
  }
  return kj::READY_NOW;
}

kj::Promise<LiveTraffic> SessionClient::channelTraffic() {
  KJ_IF_MAYBE (c, control) {
    return timer.timeoutAfter(TRAFFIC_DEADLINE, c->channelTrafficRequest().send())
        .then([](auto answer) { return parseLiveTraffic(answer.getChannels()); },
              [](kj::Exception&&) { return LiveTraffic(); });
  }
  return LiveTraffic();
}

void SessionClient::restart(kj::StringPtr why) {
  if (control == nullptr) return;
  retiring = false;
  restarter->reject(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::str(why)));
}

void SessionClient::retire() {
  KJ_IF_MAYBE (c, control) {
    retiring = true;
    // It may be gone before its answer is here.
    auto answered = c->retireRequest().send().then(
        [](auto answer) { return answer.getAgreed(); },
        [](kj::Exception&& e) { return e.getType() == kj::Exception::Type::DISCONNECTED; });
    tasks.add(answered.then([asked = kj::addRef(*self)](bool agreed) {
      KJ_IF_MAYBE (same, asked->client) same->retiring = agreed;
    }));
  }
}

kj::Promise<void> SessionClient::stop() {
  stopping = true;
  KJ_IF_MAYBE (c, control) {
    auto asked = c->stopRequest().send().ignoreResult().catch_([](kj::Exception&&) {});
    tasks.add(kj::mv(asked));
    auto late = timer.afterDelay(STOP_DEADLINE).then([this]() {
      KJ_IF_MAYBE (p, process) (*p)->kill();
    });
    tasks.add(kj::mv(late));
  } else {
    KJ_IF_MAYBE (p, process) (*p)->kill();
    if (process == nullptr) {
      running = nullptr;
      return kj::READY_NOW;
    }
  }
  return running.then([this]() { return lastEnded.addBranch(); });
}

void SessionClient::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription(), vmName);
}

}  // namespace postern::host
