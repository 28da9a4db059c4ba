#include "guest-agent/agent/agent-process.h"

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <signal.h>
#include <sodium.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "guest-agent/agent/agent.h"
#include "guest-agent/agent/briefing.h"
#include "guest-agent/agent/memory.h"
#include "guest-agent/agent/sandbox.h"
#include "guest-agent/broker/broker.h"
#include "guest-agent/log/log.h"
#include "transport/random.h"

namespace postern::guest {

namespace {

// CLOCK_BOOTTIME for power's deadlines.
class BootClock final : public kj::MonotonicClock {
 public:
  explicit BootClock(const Clocks& clocks) : clocks(clocks) {}
  kj::TimePoint now() const override { return kj::origin<kj::TimePoint>() + clocks.boot(); }

 private:
  const Clocks& clocks;
};

Uint128 drawInstance(Random& random) {
  Uint128 instance;
  random.fill(kj::arrayPtr(&instance, 1).asBytes());
  return instance;
}

kj::Array<kj::String> featuresOfAgent() {
  return kj::arr(kj::str("ping"), kj::str("info"), kj::str("power.shutdown"), kj::str("power.restart"),
                 kj::str("power.suspend"), kj::str("file"), kj::str("service"));
}

class AgentProcess final : private kj::TaskSet::ErrorHandler {
 public:
  AgentProcess(kj::LowLevelAsyncIoProvider& io, kj::UnixEventPort& port, Vault& current, Vault& successor)
      : port(port),
        timer(port.getTimer()),
        current(current),
        successor(successor),
        briefings(io.wrapUnixSocketFd(BRIEFING_FD, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP)),
        vitals(Vitals::open(clocks)),
        gaps(clocks),
        bootClock(clocks),
        broker(newBrokerClient(kj::AutoCloseFd(BROKER_FD), port)),
        policy(GuestPolicy::denyAll()),
        info(*broker, timer, featuresOfAgent()),
        power(*broker, timer, bootClock,
              [this](schema::Goodbye why) {
                KJ_IF_MAYBE (a, agent) (*a)->guestStops(why);
              }),
        files(*broker, port),
        channels(*broker, port),
        consumers(port),
        services{policy, info, power, files, channels},
        heartbeats{vitals, clocks, gaps, 1 * kj::SECONDS, 0, {}, [this]() { return power.state(); }},
        tasks(*this) {}

  // Until the broker is gone or a person has to do something. Never before that.
  kj::Promise<int> run() {
    return readBriefing(*briefings).then([this](Briefing briefing) -> kj::Promise<int> {
      machine = kj::mv(briefing.machine);
      auto opened = Pairing::open(current, successor, machine, random);
      if (opened.is<VaultError>()) return needsPerson(opened.get<VaultError>());
      pairing = kj::mv(opened.get<kj::Own<Pairing>>());
      heartbeats.interval = briefing.heartbeat;
      KJ_IF_MAYBE (status, take(briefing)) return *status;
      auto& ownPairing = *KJ_ASSERT_NONNULL(pairing);
      auto running = kj::heap<Agent>(Agent::Parts{port, timer, *broker, ownPairing, heartbeats, services, consumers,
                                                  random, vitals.bootId(), drawInstance(random), briefing.retry});
      auto& reference = *running;
      agent = kj::mv(running);
      return reference.run().then([]() { return EXIT_BROKER_GONE; }).exclusiveJoin(takeMore());
    });
  }

  kj::Promise<void> stop() {
    KJ_IF_MAYBE (a, agent) return (*a)->stop();
    return kj::READY_NOW;
  }

 private:
  kj::UnixEventPort& port;
  kj::Timer& timer;
  Vault& current;
  Vault& successor;
  SystemRandom random;
  SystemClocks clocks;
  kj::Own<kj::AsyncCapabilityStream> briefings;
  Vitals vitals;
  GapWatch gaps;
  BootClock bootClock;
  kj::Own<BrokerClient> broker;
  kj::Own<const GuestPolicy> policy;
  InfoService info;
  PowerService power;
  FileService files;
  ChannelService channels;
  Consumers consumers;
  GuestServices services;
  HeartbeatSource heartbeats;
  Machine machine{nullptr, nullptr};
  kj::Maybe<kj::Own<Pairing>> pairing;
  kj::Maybe<kj::Own<Agent>> agent;
  kj::Promise<void> pulse = kj::READY_NOW;
  kj::TaskSet tasks;

  static int needsPerson(const VaultError& error) {
    logError("identity-unusable", error.text);
    return EXIT_NEEDS_PERSON;
  }

  kj::Promise<int> takeMore() {
    return readBriefing(*briefings).then([this](Briefing briefing) -> kj::Promise<int> {
      KJ_IF_MAYBE (status, take(briefing)) return *status;
      return takeMore();
    });
  }

  // A status if this process has to end.
  kj::Maybe<int> take(Briefing& briefing) {
    takePolicy(briefing);
    channels.reconsider(kj::mv(briefing.services));
    consumers.replace(kj::mv(briefing.consumers));
    takePulse(briefing.pulse);
    kj::Vector<kj::Own<Bundle>> bundles;
    for (auto& text : briefing.bundles) {
      auto parsed = parseBundle(text.get());
      if (parsed.is<kj::Own<Bundle>>()) bundles.add(kj::mv(parsed.get<kj::Own<Bundle>>()));
    }
    auto considered = KJ_ASSERT_NONNULL(pairing)->consider(bundles);
    if (considered.is<VaultError>()) return needsPerson(considered.get<VaultError>());
    auto& told = considered.get<Pairing::Told>();
    for (auto& line : told.lines) logWarning("bundle-ignored", line);
    KJ_IF_MAYBE (a, agent) {
      if (told.news) (*a)->keysChanged();
    }
    return nullptr;
  }

  void takePolicy(const Briefing& briefing) {
    if (briefing.policy.size() == 0) {
      policy = GuestPolicy::denyAll();
    } else {
      auto parsed = GuestPolicy::parse(briefing.policyFile, briefing.policy);
      if (parsed.is<PolicyErrors>()) {
        // The broker has loaded the same text. A rule that expired in between may be one; what was in force stays.
        for (auto& line : parsed.get<PolicyErrors>().lines) logError("policy-refused", line);
      } else {
        policy = kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
      }
    }
    heartbeats.policyHash = policy->hash();
  }

  void takePulse(kj::Maybe<kj::Duration> interval) {
    KJ_IF_MAYBE (i, interval) {
      pulse = beat(*i).eagerlyEvaluate(nullptr);
    } else {
      pulse = kj::READY_NOW;
    }
  }
  kj::Promise<void> beat(kj::Duration interval) {
    static constexpr kj::byte ALIVE = 1;
    return briefings->write(&ALIVE, 1)
        .then([this, interval]() { return timer.afterDelay(interval); })
        .then([this, interval]() { return beat(interval); });
  }

  void taskFailed(kj::Exception&& exception) override { logWarning("not-done", exception.getDescription()); }
};

// What needs no loop: null, or the status to end with.
kj::Maybe<int> bindToBroker(int brokerPid) {
  // A broker that was killed takes this process along; one that is gone already is not waited for.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != brokerPid) return EXIT_BROKER_GONE;
  return nullptr;
}

}  // namespace

int runAgentProcess(const AgentProcessOptions& options) {
  setUpLog(logFormOfStderr(), "agent");
  KJ_IF_MAYBE (status, bindToBroker(options.brokerPid)) return *status;
  tuneMemory();
  KJ_ASSERT(sodium_init() >= 0);

  kj::Own<Vault> vaults[2];
  for (int i = 0; i < 2; ++i) {
    auto path = i == 0 ? kj::str(options.stateFile) : kj::str(options.stateFile, ".next");
    auto opened = FileVault::open(kj::AutoCloseFd(i == 0 ? STATE_FD : SUCCESSOR_FD), geteuid(), path);
    if (opened.is<VaultError>()) {
      logError("identity-unusable", opened.get<VaultError>().text);
      return EXIT_NEEDS_PERSON;
    }
    vaults[i] = kj::mv(opened.get<kj::Own<Vault>>());
  }

  kj::UnixEventPort::captureSignal(SIGTERM);
  kj::UnixEventPort::captureSignal(SIGINT);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a write says it as well
  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  AgentProcess process(*io.lowLevelProvider, io.unixEventPort, *vaults[0], *vaults[1]);
  auto report = enterSandbox();
  if (!report.landlock)
    logWarning("no-landlock", "this kernel has no Landlock; seccomp alone keeps the agent from files");

  auto told = io.unixEventPort.onSignal(SIGTERM).exclusiveJoin(io.unixEventPort.onSignal(SIGINT));
  auto stopped = told.then([&](siginfo_t) { return process.stop(); }).then([]() { return 0; });
  auto lost = [](kj::Exception&& why) {
    logWarning("broker-gone", why.getDescription());
    return EXIT_BROKER_GONE;
  };
  return process.run().catch_(kj::mv(lost)).exclusiveJoin(kj::mv(stopped)).wait(io.waitScope);
}

}  // namespace postern::guest
