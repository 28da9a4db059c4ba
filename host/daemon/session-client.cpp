#include "host/daemon/session-client.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/files/files.h"
#include "host/log/log.h"
#include "transport/connector.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr int SOCKET_FD = 3;
constexpr int STATE_FD = 4;

// Waits for one connection at a time; nobody but this user gets in (mode 0600 in a folder of mode 0700).
kj::AutoCloseFd listenAt(kj::StringPtr path) {
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.size() < sizeof(address.sun_path), "the runtime folder's path is too long for a socket", path);
  memcpy(address.sun_path, path.begin(), path.size());
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd listening(fd);
  unlink(path.cStr());
  KJ_SYSCALL(fchmod(listening, 0600));
  KJ_SYSCALL(bind(listening, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)), path);
  KJ_SYSCALL(listen(listening, 4));
  return listening;
}

class SpawnPlan {
 public:
  SpawnPlan() {
    KJ_ASSERT(posix_spawn_file_actions_init(&actions) == 0);
    KJ_ASSERT(posix_spawnattr_init(&attributes) == 0);
    // KJ blocks the signals that it waits for; the child starts with none blocked, in a session of its own.
    sigset_t none;
    sigemptyset(&none);
    KJ_ASSERT(posix_spawnattr_setsigmask(&attributes, &none) == 0);
    KJ_ASSERT(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID) == 0);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  KJ_DISALLOW_COPY(SpawnPlan);
  // Through a number that is not in the way.
  void give(int from, int to) { KJ_ASSERT(posix_spawn_file_actions_adddup2(&actions, from, to) == 0); }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

kj::AutoCloseFd moveUp(kj::AutoCloseFd fd) {
  int moved;
  KJ_SYSCALL(moved = fcntl(fd, F_DUPFD_CLOEXEC, 10));
  return kj::AutoCloseFd(moved);
}

}  // namespace

class SessionClient::Observer final : public schema::SessionObserver::Server {
 public:
  explicit Observer(kj::Own<Self> self) : self(kj::mv(self)) {}

  kj::Promise<void> stateChanged(StateChangedContext context) override {
    context.allowCancellation();
    return inTurn([context](Handler& handler) mutable { handler.sessionState(context.getParams().getState()); });
  }
  kj::Promise<void> event(EventContext context) override {
    context.allowCancellation();
    return inTurn([context](Handler& handler) mutable {
      auto params = context.getParams();
      handler.sessionEvent(params.getKind(), printable(params.getText(), 300), params.getCode(), params.getSession());
    });
  }
  kj::Promise<void> operation(OperationContext context) override {
    context.allowCancellation();
    return inTurn(
        [context](Handler& handler) mutable { handler.sessionOperation(parseOperationReport(context.getParams())); });
  }
  kj::Promise<void> pings(PingsContext context) override {
    context.allowCancellation();
    return inTurn([context](Handler& handler) mutable {
      KJ_IF_MAYBE (report, parsePingReport(context.getParams())) handler.sessionPings(*report);
    });
  }

 private:
  kj::Own<Self> self;

  template <typename Tell>
  kj::Promise<void> inTurn(Tell&& tell) {
    KJ_IF_MAYBE (client, self->client) {
      return client->told.take().then([this, tell = kj::fwd<Tell>(tell)]() mutable {
        KJ_IF_MAYBE (still, self->client) tell(still->handler);
      });
    }
    return kj::READY_NOW;
  }
};

SessionClient::SessionClient(kj::StringPtr vmName, const VmId& vm, Handler& handler, const Environment& environment)
    : vmName(kj::str(vmName)),
      vm(vm),
      handler(handler),
      environment(environment),
      timer(environment.port.getTimer()),
      socketPath(kj::str(environment.sessionFolder, '/', vmName, ".sock")),
      told(timer, TOLD_PER_SECOND, TOLD_BURST),
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
      KJ_IF_MAYBE (pid, lastStarted()) process = kj::heap<ProcessWatch>(environment.port, *pid);
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
  KJ_IF_MAYBE (pid, lastStarted()) {
    auto watch = kj::heap<ProcessWatch>(environment.port, *pid);
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
        return kj::mv(connected.get<Connection>().fd);
      });
}

bool SessionClient::spawn() {
  kj::AutoCloseFd state;
  KJ_IF_MAYBE (fd, handler.openState()) {
    state = moveUp(kj::mv(*fd));
  } else {
    return false;
  }
  auto listening = moveUp(listenAt(socketPath));
  SpawnPlan plan;
  plan.give(listening, SOCKET_FD);
  plan.give(state, STATE_FD);
  auto uuid = toString(vm);
  const char* argv[] = {environment.program.cStr(),
                        "--vm",
                        vmName.cStr(),
                        "--uuid",
                        uuid.cStr(),
                        "--socket-fd",
                        "3",
                        "--state-fd",
                        "4",
                        nullptr};
  pid_t pid;
  int error = posix_spawn(&pid, environment.program.cStr(), &plan.actions, &plan.attributes,
                          const_cast<char* const*>(argv), environ);
  if (error != 0) {
    logEvent(LogLevel::ERROR, "session-start-failed",
             kj::str("cannot start ", environment.program, ": ", errorWords(error)), vmName);
    return false;
  }
  process = kj::heap<ProcessWatch>(environment.port, pid);
  KJ_IF_MAYBE (failed, replaceFile(kj::str(environment.sessionFolder, '/', vmName, ".pid"), kj::str(pid), 0600,
                                   Lasting::UNTIL_REBOOT)) {
    logEvent(LogLevel::WARNING, "pid-file", failed->text, vmName);
  }
  return true;
}

kj::Promise<void> SessionClient::attach(kj::AutoCloseFd socket) {
  auto connection = kj::heap<LocalRpc>(environment.provider, kj::mv(socket));
  auto& reference = *connection;
  rpc = kj::mv(connection);
  auto client = reference.peer().castAs<schema::SessionControl>();
  auto pair = newSocketPair(SOCK_SEQPACKET);
  reports = kj::mv(pair.first);
  auto request = client.attachRequest();
  self = kj::refcounted<Self>();
  self->client = *this;
  request.setObserver(kj::heap<Observer>(kj::addRef(*self)));
  request.setReports(newDescriptor(kj::mv(pair.second)));
  request.setRollback(handler.rollback());
  return timer.timeoutAfter(ATTACH_DEADLINE, request.send())
      .then([this, &reference, client](auto answer) mutable -> kj::Promise<void> {
        KJ_REQUIRE(answer.getVm() == capnp::Data::Reader(kj::arrayPtr(vm.bytes.data(), vm.bytes.size())),
                   "the process behind the VM's socket is another VM's");
        // What it says of itself counts only where no record of ours does.
        if (process == nullptr) {
          auto pid = static_cast<pid_t>(answer.getPid());
          KJ_REQUIRE(pid > 1 && isOurs(pid), "the process behind the VM's socket names a process that is none of ours");
          process = kj::heap<ProcessWatch>(environment.port, pid);
        }
        control = kj::mv(client);
        lastHeard = timer.now();
        reportObserver.emplace(environment.port, reports, kj::UnixEventPort::FdObserver::OBSERVE_READ);
        handler.sessionAttached(answer.getState(), KJ_ASSERT_NONNULL(process)->pid());
        for (auto& waiter : attachWaiters) waiter->fulfill();
        attachWaiters.clear();
        // A process of another version is replaced: what the two say to each other may have changed.
        if (answer.getVersion() != POSTERN_VERSION) {
          tasks.add(KJ_ASSERT_NONNULL(control).stopRequest().send().ignoreResult());
        }
        return reference.onDisconnect()
            .exclusiveJoin(receiveReports())
            .exclusiveJoin(untilHung())
            .exclusiveJoin(KJ_ASSERT_NONNULL(process)->whenEnded());
      });
}

kj::Maybe<pid_t> SessionClient::lastStarted() const {
  auto read = readFile(kj::str(environment.sessionFolder, '/', vmName, ".pid"), 16);
  KJ_IF_MAYBE (text, read.tryGet<kj::String>()) {
    auto pid = static_cast<pid_t>(strtol(text->cStr(), nullptr, 10));
    if (pid > 1 && isOurs(pid)) return pid;
  }
  return nullptr;
}

// Whether it was started as spawn() does it. A process that merely has the VM's uuid in its command line, as its QEMU
// has, is not ours to end.
bool SessionClient::isOurs(pid_t pid) const {
  auto read = readFile(kj::str("/proc/", pid, "/cmdline"), 4096);
  if (read.is<FileError>()) return false;
  auto& line = read.get<kj::String>();
  KJ_IF_MAYBE (end, line.findFirst('\0')) {
    const char zero[] = {'\0'};
    auto wanted = kj::str("--vm", kj::arrayPtr(zero, 1), vmName, kj::arrayPtr(zero, 1), "--uuid", kj::arrayPtr(zero, 1),
                          toString(vm), kj::arrayPtr(zero, 1));
    auto rest = line.slice(*end + 1);
    return rest.size() >= wanted.size() && memcmp(rest.begin(), wanted.begin(), wanted.size()) == 0;
  }
  return false;
}

kj::Promise<void> SessionClient::receiveReports() {
  if (timer.now() < nextReports) return timer.atTime(nextReports).then([this]() { return receiveReports(); });
  unsigned received = 0;
  while (received < MAX_REPORTS_AT_ONCE) {
    kj::byte bytes[REPORT_BYTES + 1];
    auto size = recv(reports, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
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
  // In two halves: when posternd stood still itself, it sees in the second what was answered meanwhile.
  auto late = timer.afterDelay(ALIVE_DEADLINE / 2)
                  .then([this]() { return timer.afterDelay(ALIVE_DEADLINE / 2); })
                  .then([]() -> kj::Promise<void> {
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
  reports = nullptr;
  rpc = nullptr;
  // A process that lives and does not speak with us is of no use, and in the way of the next.
  KJ_IF_MAYBE (p, process) {
    (*p)->kill();
    auto ended = (*p)->whenEnded();
    lastEnded = ended.attach(kj::mv(*p)).fork();
    tasks.add(lastEnded.addBranch());
    process = nullptr;
  }
  if (wasAttached) handler.sessionGone(why);
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
    request.setSocket(newDescriptor(kj::mv(connection.fd)));
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
