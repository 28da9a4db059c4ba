#include "guest-agent/agent/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-agent/agent/agent-process.h"
#include "guest-agent/agent/host-finder.h"
#include "guest-agent/agent/lock-file.h"
#include "guest-agent/agent/memory.h"
#include "guest-agent/agent/notify.h"
#include "guest-agent/log/log.h"
#include "guest-agent/services/consumer-sockets.h"
#include "transport/connector.h"
#include "transport/random.h"
#include "transport/sandbox.h"

namespace postern::guest {

namespace {

constexpr auto RESTART_FIRST = 100 * kj::MILLISECONDS;
constexpr auto RESTART_MAX = 1 * kj::SECONDS;
constexpr auto GOOD_LIFE = 10 * kj::SECONDS;
// After which the broker has run what only its start needs.
constexpr auto START_TIME = 2 * kj::SECONDS;
constexpr auto NEEDS_PERSON_RETRY = 30 * kj::SECONDS;
constexpr kj::StringPtr WALL = "/usr/bin/wall"_kj;

// As one agent process needs them; made anew for each.
struct Launch {
  AgentDescriptors descriptors;
  kj::AutoCloseFd broker;
  kj::AutoCloseFd briefing;
};

kj::OneOf<kj::AutoCloseFd, kj::String> openForAgent(kj::StringPtr path, const RunAs& runAs) {
  int fd = open(path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (fd < 0) {
    if (errno == ELOOP) return kj::str(path, ": is a symbolic link, which is refused; remove it");
    if (errno == EROFS) return kj::str(path, ": the file system is read-only; the agent needs a place for its keys");
    return kj::str(path, ": cannot be opened: ", errorWords(errno));
  }
  kj::AutoCloseFd owned(fd);
  struct stat about;
  // A new one is the agent's; of one that was there, the agent checks whose it is.
  bool isNew = fstat(fd, &about) == 0 && about.st_size == 0 && about.st_uid == geteuid() && S_ISREG(about.st_mode);
  if (runAs.change && isNew && fchown(fd, runAs.uid, runAs.gid) != 0) {
    return kj::str(path, ": cannot be given to the agent's user: ", errorWords(errno));
  }
  return kj::mv(owned);
}

// Of the broker itself: connections and programs that are being begun (broker/broker.h), and all else.
constexpr rlim_t OWN_DESCRIPTORS = 4096;

class Supervisor {
 public:
  Supervisor(const SupervisorOptions& options, kj::AsyncIoContext& io, Configuration configurationParam,
             RunAs runAsParam)
      : options(options),
        io(io),
        port(io.unixEventPort),
        timer(port.getTimer()),
        paths(options.root),
        configuration(kj::mv(configurationParam)),
        runAs(kj::mv(runAsParam)),
        broker(port, brokerOptions()),
        signals(watchSignals().eagerlyEvaluate(nullptr)) {
    consumers.configure(configuration.services.consumers);
    search();
  }

  // Resolves when it was told to stop and the agent has ended.
  kj::Promise<void> run() {
    auto opened = launch();
    if (opened.is<kj::String>()) {
      logError("identity-unusable", opened.get<kj::String>());
      return pauseForPerson().then([this]() { return runAgain(); });
    }
    auto began = timer.now();
    return runOnce(kj::mv(opened.get<Launch>())).then([this, began](int status) -> kj::Promise<void> {
      if (stopping) return kj::READY_NOW;
      if (restarting) {
        restarting = false;
        return runAgain();
      }
      if (status == EXIT_NEEDS_PERSON) return pauseForPerson().then([this]() { return runAgain(); });
      logWarning("agent-died", status > 128
                                   ? kj::str("the agent was ended by signal ", status - 128, "; starting it again")
                                   : kj::str("the agent ended with status ", status, "; starting it again"));
      if (timer.now() - began >= GOOD_LIFE) restartDelay = 0 * kj::SECONDS;
      auto wait = restartDelay;
      restartDelay = kj::min(kj::max(restartDelay * 2, RESTART_FIRST), RESTART_MAX);
      return interruptible(wait).then([this]() { return runAgain(); });
    });
  }

  void ready() { notifyReady(); }

 private:
  const SupervisorOptions& options;
  kj::AsyncIoContext& io;
  kj::UnixEventPort& port;
  kj::Timer& timer;
  const Paths paths;
  SystemRandom random;
  Configuration configuration;
  RunAs runAs;
  kj::Vector<FoundBundle> bundles;
  ConsumerSockets consumers;
  Broker broker;
  kj::Maybe<kj::Own<AgentChild>> child;
  kj::Maybe<kj::Own<kj::AsyncCapabilityStream>> briefings;
  kj::Promise<void> sending = kj::READY_NOW;
  bool retryingConsumers = false;
  kj::Promise<void> consumerRetries = kj::READY_NOW;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> interruption;  // of a pause
  kj::Duration restartDelay = 0 * kj::SECONDS;
  kj::String openedState;
  bool stopping = false;
  bool restarting = false;  // on purpose
  kj::Promise<void> killLater = kj::READY_NOW;
  kj::Promise<void> signals;

  BrokerOptions brokerOptions() {
    kj::Maybe<Identity> identity;
    if (runAs.change) identity = Identity{runAs.uid, runAs.gid};
    auto command = []() { return kj::arr(kj::str("/proc/self/exe"), kj::str("--probe")); };
    BrokerOptions result;
    result.probeCommand = command();
    result.probeIdentity = identity;
    result.hooksFolder = kj::str(paths.hooksFolder);
    result.hookTime = configuration.settings.hookTimeout;
    auto method = configuration.settings.power;
    bool systemd = method == PowerMethod::SYSTEMCTL || (method == PowerMethod::AUTO && systemdRunsHere());
    result.power = systemd ? newSystemdPower(command(), identity) : newSyscallPower();
    if (access(WALL.cStr(), X_OK) == 0) result.tellCommand = kj::arr(kj::str(WALL));
    result.refuse = [this](kj::StringPtr call, kj::StringPtr caller) { return refuse(call, caller); };
    result.openerCommand = kj::arr(kj::str("/proc/self/exe"), kj::str("--opener"));
    result.planFiles = [this](const transfer::FileOrder& order, kj::StringPtr caller) {
      return planOpener(*configuration.policy, runAs, order, caller);
    };
    result.planService = [this](kj::StringPtr service, kj::StringPtr caller) {
      return planService(*configuration.policy, configuration.services, runAs, service, caller);
    };
    result.connect = [this]() { return connect(); };
    result.enrolled = [this]() -> kj::Promise<bool> { return enrolled(); };
    return result;
  }

  kj::Maybe<kj::String> refuse(kj::StringPtr call, kj::StringPtr callerText) {
    KJ_IF_MAYBE (caller, parseCallerText(callerText)) {
      KJ_IF_MAYBE (denial, configuration.policy->decide(*caller, call)) return kj::mv(denial->detail);
      return nullptr;
    }
    return GuestPolicy::unknownCaller().detail;
  }

  kj::Promise<Connected> connect() {
    KJ_IF_MAYBE (endpoint, findHost(paths, options.connect, configuration.settings, bundles)) {
      ConnectOptions how;
      how.privilegedSource = random;
      return connectTo(port, timer, *endpoint, how);
    }
    return Connected(TransportError{hostMissing(paths)});
  }

  bool enrolled() {
    auto result = settleEnrolment(paths, configuration, bundles);
    for (auto& line : result.lines) logInfo("bundle-settled", line);
    if (!result.adopted) return false;
    reread();
    broker.configurationChanged();
    sendBriefing();
    return true;
  }

  void search() {
    auto found = searchBundles(paths, options.bundleFile, options.credentials);
    for (auto& problem : found.problems) logWarning("bundle-unusable", problem);
    bundles = kj::mv(found.found);
  }

  // The configuration, unless there is an error.
  void reread() {
    auto next = readConfiguration(paths, options.config);
    if (next.is<PolicyErrors>()) {
      for (auto& line : next.get<PolicyErrors>().lines) logError("reload-refused", line);
      return;
    }
    configuration = kj::mv(next.get<Configuration>());
    consumers.configure(configuration.services.consumers);
  }

  void reload() {
    notifyReloading();
    logInfo("reload", "reading configuration and bundles again");
    auto connectBefore = endpointText();
    reread();
    search();
    auto nextRunAs = findRunAs(configuration.settings.user.map([](kj::String& name) -> kj::StringPtr { return name; }));
    bool otherUser = false;
    if (nextRunAs.is<RunAsError>()) {
      logError("reload-refused", nextRunAs.get<RunAsError>().text);
    } else {
      otherUser = nextRunAs.get<RunAs>().uid != runAs.uid;
      runAs = kj::mv(nextRunAs.get<RunAs>());
    }
    broker.configurationChanged();
    if (otherUser || endpointText() != connectBefore || stateFileId() != openedState) {
      restarting = child != nullptr;
      KJ_IF_MAYBE (c, child) (*c)->signal(SIGTERM);
    } else {
      sendBriefing();
    }
    KJ_IF_MAYBE (i, interruption) (*i)->fulfill();
    notifyReady();
  }
  // Which file it is: `join --force` removes one, and the agent has the old one open.
  kj::String stateFileId() {
    struct stat about;
    if (stat(paths.stateFile.cStr(), &about) != 0) return kj::String();
    return kj::str(about.st_dev, ':', about.st_ino);
  }
  kj::String endpointText() {
    KJ_IF_MAYBE (set, configuration.settings.connect) return toString(*set);
    return kj::str("auto");
  }

  Briefing briefing() {
    Briefing result;
    result.heartbeat = configuration.settings.heartbeat;
    result.retry = configuration.settings.retry;
    result.policyFile = kj::str(configuration.policyFile);
    result.policy = kj::str(configuration.policyText);
    for (auto& found : bundles) result.bundles.add(SecretText(kj::str(found.text.get())));
    result.machine = Machine::read(paths);
    for (auto& service : configuration.services.services) result.services.add(exportOf(service));
    result.consumers = consumers.brief();
    KJ_IF_MAYBE (interval, watchdogInterval()) result.pulse = *interval / 3;
    return result;
  }

  void sendBriefing() {
    KJ_IF_MAYBE (stream, briefings) {
      auto& out = **stream;
      sending = sending.then([&out, news = briefing()]() mutable { return writeBriefing(out, kj::mv(news)); });
      sending = sending.eagerlyEvaluate([](kj::Exception&&) {});  // the agent died
      retryConsumers();
    }
  }

  void retryConsumers() {
    if (retryingConsumers || consumers.isComplete()) return;
    retryingConsumers = true;
    consumerRetries = tryConsumersAgain().eagerlyEvaluate([this](kj::Exception&& exception) {
      logError("consume-failed", exception.getDescription());
      retryingConsumers = false;
    });
  }
  kj::Promise<void> tryConsumersAgain() {
    return timer.afterDelay(CONSUMER_RETRY).then([this]() -> kj::Promise<void> {
      consumers.configure(configuration.services.consumers);
      if (consumers.hasNews()) sendBriefing();
      if (!consumers.isComplete()) return tryConsumersAgain();
      retryingConsumers = false;
      return kj::READY_NOW;
    });
  }

  kj::OneOf<Launch, kj::String> launch() {
    KJ_IF_MAYBE (error, makeFoldersAbove(paths.stateFile, 0755)) return kj::mv(*error);
    auto state = openForAgent(paths.stateFile, runAs);
    if (state.is<kj::String>()) return kj::mv(state.get<kj::String>());
    auto successor = openForAgent(kj::str(paths.stateFile, ".next"), runAs);
    if (successor.is<kj::String>()) return kj::mv(successor.get<kj::String>());
    openedState = stateFileId();
    auto sockets = newBrokerSockets();
    int pair[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    return Launch{{kj::mv(sockets.agent), kj::AutoCloseFd(pair[1]), kj::mv(state.get<kj::AutoCloseFd>()),
                   kj::mv(successor.get<kj::AutoCloseFd>())},
                  kj::mv(sockets.broker),
                  kj::AutoCloseFd(pair[0])};
  }

  // One agent from its start to its end.
  kj::Promise<int> runOnce(Launch launch) {
    auto started = kj::heap<AgentChild>(port, kj::mv(launch.descriptors), runAs, paths.stateFile);
    auto& agent = *started;
    child = kj::mv(started);
    briefings = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(launch.briefing));
    sending = kj::READY_NOW;
    consumers.agentIsNew();
    sendBriefing();
    auto service = broker.serve(kj::mv(launch.broker)).then([&agent](kj::OneOf<AgentGone, AgentBrokeRule> why) {
      if (why.is<AgentBrokeRule>()) {
        logError("agent-broke-rule",
                 kj::str("the agent sent what no agent sends, and is ended: ", why.get<AgentBrokeRule>().text));
      }
      agent.signal(SIGKILL);
      return kj::Promise<int>(kj::NEVER_DONE);
    });
    auto pulses = takePulses().then([]() { return kj::Promise<int>(kj::NEVER_DONE); });
    return agent.onEnd().exclusiveJoin(kj::mv(service)).exclusiveJoin(kj::mv(pulses)).then([this](int status) {
      sending = kj::READY_NOW;
      briefings = nullptr;
      child = nullptr;
      return status;
    });
  }

  kj::Promise<void> takePulses() {
    auto byte = kj::heap<kj::byte>(kj::byte(0));
    auto reading = KJ_ASSERT_NONNULL(briefings)->tryRead(byte.get(), 1, 1);
    return reading.attach(kj::mv(byte))
        .then(
            [this](size_t n) -> kj::Promise<void> {
              if (n == 0) return kj::READY_NOW;
              notifyAlive();
              return takePulses();
            },
            [](kj::Exception&&) {});
  }

  kj::Promise<void> runAgain() {
    if (stopping) return kj::READY_NOW;
    return run();
  }

  kj::Promise<void> pauseForPerson() { return interruptible(NEEDS_PERSON_RETRY); }
  kj::Promise<void> interruptible(kj::Duration wait) {
    if (stopping) return kj::READY_NOW;
    auto pair = kj::newPromiseAndFulfiller<void>();
    interruption = kj::mv(pair.fulfiller);
    return timer.afterDelay(wait).exclusiveJoin(kj::mv(pair.promise));
  }

  kj::Promise<void> watchSignals() {
    auto stop = port.onSignal(SIGTERM).exclusiveJoin(port.onSignal(SIGINT)).then([](siginfo_t) { return true; });
    auto again = port.onSignal(SIGHUP).then([](siginfo_t) { return false; });
    return stop.exclusiveJoin(kj::mv(again)).then([this](bool ends) {
      auto failure = kj::runCatchingExceptions([&]() { ends ? beginStop() : reload(); });
      KJ_IF_MAYBE (why, failure) logError("signal-failed", kj::str(*why));
      return watchSignals();
    });
  }

  void beginStop() {
    if (stopping) return;
    stopping = true;
    notifyStopping();
    logInfo("stopping", "told to stop");
    KJ_IF_MAYBE (i, interruption) (*i)->fulfill();
    KJ_IF_MAYBE (c, child) {
      (*c)->signal(SIGTERM);
      killLater = timer.afterDelay(STOP_TIME)
                      .then([this]() {
                        KJ_IF_MAYBE (late, child) (*late)->signal(SIGKILL);
                      })
                      .eagerlyEvaluate(nullptr);
    }
  }
};

}  // namespace

int runSupervisor(const SupervisorOptions& options, kj::AsyncIoContext& io) {
  Paths paths(options.root);
  auto lock = takeLock(paths.lock);
  if (lock.is<LockHeld>()) {
    logError("already-running", kj::str("an agent is running already (pid ", lock.get<LockHeld>().holder, ", ",
                                        paths.lock, "); stop it, or give this one a --root of its own"));
    return 1;
  }
  if (lock.is<LockError>()) {
    logError("no-lock", lock.get<LockError>().text);
    return 1;
  }
  auto configuration = readConfiguration(paths, options.config);
  if (configuration.is<PolicyErrors>()) {
    for (auto& line : configuration.get<PolicyErrors>().lines) logError("configuration-refused", line);
    return 1;
  }
  auto& read = configuration.get<Configuration>();
  auto runAs = findRunAs(read.settings.user.map([](kj::String& name) -> kj::StringPtr { return name; }));
  if (runAs.is<RunAsError>()) {
    logError("configuration-refused", runAs.get<RunAsError>().text);
    return 1;
  }
  if (runAs.get<RunAs>().warning.size() > 0) logWarning("runs-as-root", runAs.get<RunAs>().warning);
  auto basis = Machine::read(paths).basis();
  if (basis == Machine::Basis::MACHINE_ID) {
    logInfo("machine-by-id",
            "no SMBIOS product UUID can be read; this machine is told from a copy of it by its machine-id");
  } else if (basis == Machine::Basis::NONE) {
    logWarning("machine-unknown",
               "neither an SMBIOS product UUID nor a machine-id: a copy of this machine is not noticed");
  }
  logInfo("started", kj::str("postern-agent ", POSTERN_VERSION,
                             read.policyFile.size() == 0 ? kj::str("; no policy: everything is denied")
                                                         : kj::str("; policy ", read.policyFile)));
  raiseLimit(RLIMIT_NOFILE, OWN_DESCRIPTORS);
  Supervisor supervisor(options, io, kj::mv(read), kj::mv(runAs.get<RunAs>()));
  supervisor.ready();
  auto started =
      io.provider->getTimer().afterDelay(START_TIME).then([]() { releaseStartupPages(); }).eagerlyEvaluate(nullptr);
  supervisor.run().wait(io.waitScope);
  logInfo("stopped", "bye");
  return 0;
}

}  // namespace postern::guest
