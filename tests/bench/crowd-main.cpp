// postern-crowd: a real posternd with a real session process for each of many VMs, and all their guests in this
// process. README.md says what the rows mean.

#include <kj/debug.h>
#include <kj/main.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "host/board/board-reader.h"
#include "host/registry/registry.h"
#include "protocol/limits.h"
#include "tests/bench/clock.h"
#include "tests/bench/crowd-guest.h"
#include "tests/bench/process-figures.h"
#include "tests/bench/quantile.h"
#include "tests/bench/real-host.h"
#include "tests/bench/report.h"
#include "transport/private-file.h"

namespace postern::bench {

namespace {

constexpr double MIB = 1 << 20;

// What 1,000 VMs may cost on a machine with two cores.
constexpr double CONNECT_SECONDS = 15;
constexpr double CPU_PERCENT = 20;
constexpr double PRIVATE_MIB = 1.5;
constexpr double STATUS_MILLISECONDS = 100;

class Crowd {
 public:
  Crowd(kj::AsyncIoContext& io, unsigned count) : io(io), loop(io), host(io) {
    KJ_REQUIRE(host::makeFolder(host.path("links"), 0700) == nullptr);
    for (unsigned i = 0; i < count; ++i) {
      char name[16];
      snprintf(name, sizeof(name), "vm%04u", i);
      guests.add(kj::heap<CrowdGuest>(loop, name, host.path(kj::str("links/", name, ".sock"))));
      enrol(*guests.back(), host.path(kj::str("links/", name, ".sock")));
    }
  }

  void measure(Report& report, kj::Duration steady) {
    double began = wallSeconds();
    host.start();
    for (auto& guest : guests) guest->start();
    untilAllIn();
    report.add(row("posternd starts, all knock"), "s", Target::atMost(1), {CONNECT_SECONDS, wallSeconds() - began});
    untilAllGreen();
    report.add(row("CPU of that, host"), "s", Target::none(), {CONNECT_SECONDS, hostSeconds(host.sessions())});
    for (auto& guest : guests) guest->cut();
    wait(2 * kj::SECONDS);
    began = wallSeconds();
    for (auto& guest : guests) guest->start();
    untilAllIn();
    report.add(row("all connect at once"), "s", Target::atMost(1), {CONNECT_SECONDS, wallSeconds() - began});
    untilAllGreen();
    measureSteady(report, steady);
    measureMemory(report);
    measureStatus(report);
    for (auto& guest : guests) KJ_REQUIRE(guest->isIn(), "a guest was lost", guest->lastFailure(), host.logged());
  }

 private:
  kj::AsyncIoContext& io;
  CrowdLoop loop;
  RealHost host;
  kj::Vector<kj::Own<CrowdGuest>> guests;

  kj::String row(kj::StringPtr what) { return kj::str(guests.size(), " VMs, ", what); }
  void wait(kj::Duration time) { loop.timer.afterDelay(time).wait(io.waitScope); }

  // What `postern enroll` and an agent with its bundle leave behind on the host.
  void enrol(const CrowdGuest& guest, kj::StringPtr socketPath) {
    host::VmRecord record;
    record.name = kj::str(guest.name());
    record.uuid = guest.hostState().vm;
    record.transport = kj::str("unix:", socketPath);
    host::Registry registry(host.paths.vmFolder);
    KJ_IF_MAYBE (error, registry.put(kj::mv(record))) KJ_FAIL_REQUIRE("cannot register", error->text);
    auto path = kj::str(host.paths.vmFolder, '/', guest.name(), ".state");
    auto file = openStateFile(path, PrivateFileMode::CREATE);
    KJ_REQUIRE(file.is<StateFile>(), file.get<kj::String>());
    KJ_REQUIRE(file.get<StateFile>().write(encodeState(guest.hostState())) == nullptr, "cannot write", path);
  }

  size_t countIn() {
    size_t in = 0;
    for (auto& guest : guests) in += guest->isIn();
    return in;
  }

  void untilAllIn() {
    for (double began = wallSeconds(); countIn() < guests.size();) {
      wait(10 * kj::MILLISECONDS);
      if (wallSeconds() - began < 120) continue;
      for (auto& guest : guests) {
        if (!guest->isIn()) KJ_LOG(ERROR, guest->name(), guest->attempts(), guest->lastFailure());
      }
      KJ_FAIL_REQUIRE("guests are not let in", guests.size() - countIn(), host.logged());
    }
  }

  size_t countGreen() {
    auto board = host::BoardReader::open(host.paths.board);
    if (!board.is<kj::Own<host::BoardReader>>()) return 0;
    auto shown = board.get<kj::Own<host::BoardReader>>()->snapshot(kj::systemPreciseMonotonicClock().now());
    size_t green = 0;
    for (auto& vm : shown.vms) green += vm.verdict.colour == host::Colour::GREEN;
    return green;
  }

  void untilAllGreen() {
    for (double began = wallSeconds(); countGreen() < guests.size(); wait(50 * kj::MILLISECONDS)) {
      KJ_REQUIRE(wallSeconds() - began < 60, "not all VMs turn green", countGreen(), host.logged());
    }
  }

  // CPU of posternd and all sessions while nothing happens but heartbeats.
  void measureSteady(Report& report, kj::Duration steady) {
    auto sessions = host.sessions();
    KJ_REQUIRE(sessions.size() == guests.size(), "not one session process a VM", sessions.size());
    wait(1 * kj::SECONDS);
    double began = wallSeconds(), before = hostSeconds(sessions), daemonBefore = cpuSecondsOf(host.posternd());
    uint64_t heartbeatsBefore = heartbeats();
    bool allGreen = true;
    for (double until = began + static_cast<double>(steady / kj::MILLISECONDS) / 1e3; wallSeconds() < until;) {
      wait(250 * kj::MILLISECONDS);
      allGreen = allGreen && countGreen() == guests.size();
    }
    double took = wallSeconds() - began;
    double ofAll = (hostSeconds(sessions) - before) / took * 100;
    double ofDaemon = (cpuSecondsOf(host.posternd()) - daemonBefore) / took * 100;
    KJ_REQUIRE(allGreen, "a VM did not stay green", host.logged());
    report.add(row("CPU, all of the host"), "%", Target::atMost(1), {CPU_PERCENT, ofAll});
    report.add(row("CPU of posternd"), "%", Target::none(), {CPU_PERCENT, ofDaemon});
    report.add(row("heartbeats"), "1/s", Target::atLeast(0.98),
               {static_cast<double>(guests.size()), static_cast<double>(heartbeats() - heartbeatsBefore) / took});
  }

  // CPU of posternd and its sessions since they began.
  double hostSeconds(kj::ArrayPtr<const pid_t> sessions) {
    double all = cpuSecondsOf(host.posternd());
    for (auto pid : sessions) all += cpuSecondsOf(pid);
    return all;
  }

  uint64_t heartbeats() {
    uint64_t all = 0;
    for (auto& guest : guests) all += guest->heartbeats();
    return all;
  }

  void measureMemory(Report& report) {
    double all = 0, most = 0;
    auto sessions = host.sessions();
    for (auto pid : sessions) {
      KJ_IF_MAYBE (bytes, privateBytesOf(pid)) {
        all += static_cast<double>(*bytes);
        most = kj::max(most, static_cast<double>(*bytes));
      } else {
        fprintf(stderr, "memory: sessions cannot be looked into but by root; not measured\n");
        return;
      }
    }
    auto ofDaemon = static_cast<double>(KJ_REQUIRE_NONNULL(privateBytesOf(host.posternd())));
    double vms = static_cast<double>(guests.size());
    report.add(row("private memory a VM"), "MiB", Target::atMost(1), {PRIVATE_MIB, (all + ofDaemon) / vms / MIB});
    report.add(row("largest session's"), "MiB", Target::none(), {PRIVATE_MIB, most / MIB});
  }

  void measureStatus(Report& report) {
    auto program = builtProgram("host/postern");
    kj::Vector<double> times;
    for (int i = 0; i < 5; ++i) {
      auto log = host.path(kj::str("status", i));
      double began = wallSeconds();
      ChildProcess postern(kj::ArrayPtr<const kj::StringPtr>({program, "--root"_kj, host.root, "status"_kj}), log);
      KJ_REQUIRE(postern.wait() == 0, "postern status");
      times.add((wallSeconds() - began) * 1e3);
      auto printed = host::readFile(log, size_t(16) << 20);
      size_t lines = 0;
      for (char c : printed.get<kj::String>()) lines += c == '\n';
      KJ_REQUIRE(lines >= guests.size(), "postern status does not show all", lines);
    }
    report.add(row("postern status of all"), "ms", Target::atMost(1), {STATUS_MILLISECONDS, quantile(times, 0.5)});
  }
};

class CrowdMain {
 public:
  explicit CrowdMain(kj::ProcessContext& context) : context(context) {}

  kj::MainFunc getMain() {
    return kj::MainBuilder(context, "postern-crowd " POSTERN_VERSION,
                           "Measures a posternd with many VMs. Exits 1 when a target was missed.")
        .addOptionWithArg({"vms"}, KJ_BIND_METHOD(*this, setVms), "<n>", "How many VMs; 1000 if not given.")
        .addOptionWithArg({"seconds"}, KJ_BIND_METHOD(*this, setSeconds), "<n>",
                          "How long the steady state is looked at; 30 if not given.")
        .addOption(
            {"json"},
            [this]() {
              json = true;
              return true;
            },
            "Prints JSON in place of a table.")
        .addOption(
            {"quick"},
            [this]() {
              quick = true;
              vms = 8;
              seconds = 2;
              return true;
            },
            "8 VMs and 2 seconds, only to see that everything runs; a missed target does not count.")
        .callAfterParsing(KJ_BIND_METHOD(*this, run))
        .build();
  }

 private:
  kj::ProcessContext& context;
  unsigned vms = 1000;
  unsigned seconds = 30;
  bool json = false;
  bool quick = false;

  kj::MainBuilder::Validity number(kj::StringPtr text, unsigned most, unsigned& out) {
    char* end;
    unsigned long value = strtoul(text.cStr(), &end, 10);
    if (*end != '\0' || value < 1 || value > most) return kj::str("a number from 1 to ", most);
    out = static_cast<unsigned>(value);
    return true;
  }
  kj::MainBuilder::Validity setVms(kj::StringPtr text) { return number(text, host::MAX_VMS, vms); }
  kj::MainBuilder::Validity setSeconds(kj::StringPtr text) { return number(text, 3600, seconds); }

  kj::MainBuilder::Validity run() {
    KJ_REQUIRE(sodium_init() >= 0);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &files));
    files.rlim_cur = files.rlim_max;
    KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &files));
    auto io = kj::setupAsyncIo();
    io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
    Report report;
    {
      Crowd crowd(io, vms);
      crowd.measure(report, seconds * kj::SECONDS);
    }
    auto text = json ? report.asJson() : report.asTable();
    fputs(text.cStr(), stdout);
    fflush(stdout);
    if (!quick && !report.isMet()) context.exitError("a target was missed");
    return true;
  }
};

}  // namespace

}  // namespace postern::bench

KJ_MAIN(postern::bench::CrowdMain)
