// postern-footprint: what a postern-agent costs its guest: memory, after many pings and many reconnects, and wake-ups
// while nothing happens. README.md says what the rows mean.

#include <kj/async-unix.h>
#include <kj/debug.h>
#include <kj/main.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>

#include "protocol/limits.h"
#include "tests/bench/clock.h"
#include "tests/bench/cut-wire.h"
#include "tests/bench/process-figures.h"
#include "tests/bench/real-agent.h"
#include "tests/bench/report.h"

namespace postern::bench {

namespace {

constexpr double MIB = 1 << 20;

// An agent may have so much resident, and so much more after all that is done to it.
constexpr double RESIDENT_MIB = 8;
constexpr double GROWTH_MIB = 0.25;
// Its heartbeat's timer, and the heartbeat's answer.
constexpr double WAKEUPS_PER_SECOND = 2;

struct Amount {
  unsigned pings;
  unsigned reconnects;
  unsigned idleSeconds;
};

constexpr unsigned WINDOW = 64;

// Thousands of reconnects in a row shall not take hours.
constexpr kj::StringPtr AGENT_TOML = R"(policy = 1
[agent]
retry = 10
[[allow]]
id = "ping"
call = ["ping"]
)"_kj;

class Footprint {
 public:
  explicit Footprint(kj::AsyncIoContext& io)
      : io(io),
        host(io),
        started((host.start(), host.connect())),
        wire(io, host.path("wire"), RealAgent::listenerOf(host, "web1")),
        agent(host, "web1", "ping", kj::StringPtr(host.path("wire")), AGENT_TOML),
        vm(host.openVm(*started, "web1", "ping")) {
    agent.untilConnected(*vm, io);
  }

  void measure(const Amount& amount, Report& report) {
    measureIdle(amount.idleSeconds, report);
    report.add("agent, resident when idle", "MiB", Target::atMost(1), {RESIDENT_MIB, resident(agent.agent())});
    report.add("broker, resident when idle", "MiB", Target::atMost(1), {RESIDENT_MIB, resident(agent.broker())});
    auto pid = agent.agent();
    measurePings(amount.pings, report);
    measureReconnects(amount.reconnects, report);
    report.add("agent, resident in the end", "MiB", Target::atMost(1), {RESIDENT_MIB, resident(pid)});
    KJ_REQUIRE(agent.agent() == pid, "the agent was started anew meanwhile", host.logged());
  }

 private:
  kj::AsyncIoContext& io;
  RealHost host;
  kj::Own<client::ControlClient> started;
  CutWire wire;
  RealAgent agent;
  kj::Own<client::VmClient> vm;

  static double resident(pid_t pid) { return static_cast<double>(residentBytesOf(pid)) / MIB; }
  void wait(kj::Duration time) { io.unixEventPort.getTimer().afterDelay(time).wait(io.waitScope); }

  // After what follows a connect has settled.
  void measureIdle(unsigned seconds, Report& report) {
    wait(3 * kj::SECONDS);
    auto pid = agent.agent();
    auto before = waitsOf(pid), brokerBefore = waitsOf(agent.broker());
    double began = wallSeconds();
    wait(seconds * kj::SECONDS);
    double took = wallSeconds() - began;
    report.add("agent, wake-ups when idle", "1/s", Target::atMost(1.1),
               {WAKEUPS_PER_SECOND, static_cast<double>(waitsOf(pid) - before) / took});
    report.add("broker, wake-ups when idle", "1/s", Target::atMost(1),
               {1, static_cast<double>(waitsOf(agent.broker()) - brokerBefore) / took});
  }

  // One of the calls under way: when it returns, the next takes its place.
  kj::Promise<void> lane(unsigned& left) {
    if (left == 0) return kj::READY_NOW;
    --left;
    return vm->calls().pingRequest().send().then([this, &left](auto answer) {
      KJ_REQUIRE(!answer.hasFailure(), answer.getFailure().getText());
      return lane(left);
    });
  }

  void ping(unsigned count) {
    auto lanes = kj::heapArrayBuilder<kj::Promise<void>>(WINDOW);
    for (unsigned i = 0; i < WINDOW; ++i) lanes.add(lane(count));
    kj::joinPromises(lanes.finish()).wait(io.waitScope);
  }

  // The first tenth makes what every agent makes once; from there on it may not grow.
  void measurePings(unsigned count, Report& report) {
    ping(count / 10);
    double before = resident(agent.agent()), began = wallSeconds();
    ping(count - count / 10);
    auto name = kj::str("agent, growth over ", count, " pings");
    report.add(name, "MiB", Target::atMost(1), {GROWTH_MIB, kj::max(resident(agent.agent()) - before, 0.0)});
    report.add("pings, 64 at a time", "1/s", Target::none(), {1, (count - count / 10) / (wallSeconds() - began)});
  }

  void reconnect(unsigned times) {
    for (unsigned i = 0; i < times; ++i) {
      auto before = wire.made();
      wire.cut();
      while (wire.made() == before) wait(10 * kj::MILLISECONDS);
      agent.untilConnected(*vm, io);
    }
  }

  void measureReconnects(unsigned count, Report& report) {
    reconnect(count / 10);
    auto session = host.sessions();
    KJ_REQUIRE(session.size() == 1);
    double before = resident(agent.agent()), sessionBefore = resident(session[0]);
    reconnect(count - count / 10);
    auto name = kj::str("agent, growth over ", count, " reconnects");
    report.add(name, "MiB", Target::atMost(1), {GROWTH_MIB, kj::max(resident(agent.agent()) - before, 0.0)});
    name = kj::str("session, growth over ", count, " reconnects");
    report.add(name, "MiB", Target::atMost(1), {GROWTH_MIB, kj::max(resident(session[0]) - sessionBefore, 0.0)});
  }
};

class FootprintMain {
 public:
  explicit FootprintMain(kj::ProcessContext& context) : context(context) {}

  kj::MainFunc getMain() {
    return kj::MainBuilder(context, "postern-footprint " POSTERN_VERSION,
                           "Measures what an agent costs its guest. Exits 1 when a target was missed.")
        .addOption(
            {"full"},
            [this]() {
              amount = {1'000'000, 10'000, 30};
              return true;
            },
            "1,000,000 pings and 10,000 reconnects, which takes five to ten minutes; 100,000 and 200 if not given.")
        .addOption(
            {"quick"},
            [this]() {
              amount = {1000, 10, 2};
              quick = true;
              return true;
            },
            "Little work, only to see that everything runs; a missed target does not count.")
        .addOption(
            {"json"},
            [this]() {
              json = true;
              return true;
            },
            "Prints JSON in place of a table.")
        .callAfterParsing(KJ_BIND_METHOD(*this, run))
        .build();
  }

 private:
  kj::ProcessContext& context;
  Amount amount{100'000, 200, 10};
  bool quick = false;
  bool json = false;

  kj::MainBuilder::Validity run() {
    KJ_REQUIRE(sodium_init() >= 0);
    signal(SIGPIPE, SIG_IGN);
    auto io = kj::setupAsyncIo();
    io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
    Report report;
    Footprint(io).measure(amount, report);
    auto text = json ? report.asJson() : report.asTable();
    fputs(text.cStr(), stdout);
    fflush(stdout);
    if (!quick && !report.isMet()) context.exitError("a target was missed");
    return true;
  }
};

}  // namespace

}  // namespace postern::bench

KJ_MAIN(postern::bench::FootprintMain)
