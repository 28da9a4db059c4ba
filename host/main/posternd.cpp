// posternd: the host service. Wires the parts, and speaks with whoever started it: signals, sd_notify, the lock.

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "host/daemon/control-server.h"
#include "host/daemon/daemon.h"
#include "host/daemon/metrics-page.h"
#include "host/daemon/passed-socket.h"
#include "host/log/log.h"
#include "host/metrics/scrape-server.h"
#include "protocol/limits.h"
#include "transport/connection.h"

namespace postern::host {
namespace {

struct Options {
  std::string root;
  std::string config;
  bool checkConfig = false;
  bool endSessions = false;
};

int fail(kj::StringPtr text) {
  logEvent(LogLevel::ERROR, "start-failed", text);
  return 1;
}

// Beside this program, or where packages put it.
kj::String findSessionProgram(const Config& config) {
  if (config.sessionProgram.size() > 0) return kj::str(config.sessionProgram);
  char path[4096];
  auto size = readlink("/proc/self/exe", path, sizeof(path));
  if (size > 0) {
    auto self = kj::heapString(path, size_t(size));
    KJ_IF_MAYBE (slash, self.findLast('/')) {
      auto beside = kj::str(self.slice(0, *slash), "/postern-session");
      if (access(beside.cStr(), X_OK) == 0) return beside;
    }
  }
  return kj::str("/usr/libexec/postern/postern-session");
}

kj::OneOf<kj::AutoCloseFd, FileError> takeLock(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd == nullptr) return FileError{kj::str(path, ": cannot open it: ", errorWords(errno))};
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return FileError{kj::str(path, ": another posternd is running on this root; stop that one first")};
  }
  return kj::mv(fd);
}

kj::OneOf<kj::Maybe<gid_t>, kj::String> findGroup(kj::StringPtr name) {
  if (name.size() == 0) return kj::Maybe<gid_t>();
  struct group* entry = getgrnam(name.cStr());
  if (entry == nullptr) return kj::str("there is no group ", name, " (postern.toml: group)");
  return kj::Maybe<gid_t>(entry->gr_gid);
}

kj::Maybe<FileError> makeFolders(const Paths& paths) {
  KJ_IF_MAYBE (e, makeFolder(paths.sessionFolder, 0700)) return kj::mv(*e);
  KJ_IF_MAYBE (e, makeFolder(paths.vmFolder, 0700)) return kj::mv(*e);
  auto log = kj::str(paths.auditLog.slice(0, KJ_ASSERT_NONNULL(paths.auditLog.findLast('/'))));
  return makeFolder(log, 0750);
}

// sd_notify's watchdog, as often as it asks for; proves that the loop turns.
kj::Promise<void> feedWatchdog(kj::Timer& timer, kj::Duration interval) {
  sd_notify(0, "WATCHDOG=1");
  return timer.afterDelay(interval).then([&timer, interval]() { return feedWatchdog(timer, interval); });
}

kj::Promise<void> reloadOnHangup(kj::UnixEventPort& port, Daemon& daemon, kj::StringPtr config, Presence presence) {
  return port.onSignal(SIGHUP).then([&port, &daemon, config, presence](siginfo_t) {
    sd_notify(0, "RELOADING=1");
    daemon.reload(config, presence);
    sd_notify(0, "READY=1");
    return reloadOnHangup(port, daemon, config, presence);
  });
}

struct ControlSocket {
  kj::AutoCloseFd fd;
  enum class Owner : uint8_t { POSTERND, SERVICE_MANAGER } owner;
};

kj::OneOf<ControlSocket, FileError> openControlSocket(kj::StringPtr path, kj::Maybe<gid_t> group) {
  auto passed = takePassedSocket(path);
  KJ_IF_MAYBE (error, passed.tryGet<FileError>()) return kj::mv(*error);
  KJ_IF_MAYBE (fd, passed.tryGet<kj::AutoCloseFd>()) {
    return ControlSocket{kj::mv(*fd), ControlSocket::Owner::SERVICE_MANAGER};
  }
  auto made = listenForCallers(path, group);
  KJ_IF_MAYBE (error, made.tryGet<FileError>()) return kj::mv(*error);
  return ControlSocket{kj::mv(made.get<kj::AutoCloseFd>()), ControlSocket::Owner::POSTERND};
}

// The metrics of `daemon`, where they are wanted and can be had: monitoring that fails keeps no VM waiting.
kj::Maybe<kj::Own<ScrapeServer>> serveMetrics(Daemon& daemon, kj::Maybe<gid_t> group, kj::AsyncIoContext& io) {
  KJ_IF_MAYBE (address, daemon.settings().metricsListen) {
    auto listening = listenForScrapers(*address, group);
    KJ_IF_MAYBE (problem, listening.tryGet<kj::String>()) {
      logEvent(LogLevel::ERROR, "metrics-failed", *problem);
      return nullptr;
    }
    logEvent(LogLevel::INFO, "metrics", kj::str("metrics at ", *address));
    return kj::heap<ScrapeServer>(io, kj::mv(listening.get<kj::AutoCloseFd>()),
                                  [&daemon]() { return makeMetricsPage(daemon); });
  }
  return nullptr;
}

// Settings or policy that posternd does not start with; systemd does not try again then (posternd.service).
constexpr int EXIT_BAD_CONFIG = 2;

int badConfig(kj::ArrayPtr<const kj::String> lines) {
  for (auto& line : lines) logEvent(LogLevel::ERROR, "config-error", line);
  return EXIT_BAD_CONFIG;
}

// All that is wrong, not only what comes first.
int checkConfig(const Paths& paths, kj::OneOf<Config, kj::Vector<kj::String>>& read) {
  int status = 0;
  KJ_IF_MAYBE (lines, read.tryGet<kj::Vector<kj::String>>()) status = badConfig(*lines);
  KJ_IF_MAYBE (config, read.tryGet<Config>()) {
    auto group = findGroup(config->group);
    KJ_IF_MAYBE (problem, group.tryGet<kj::String>()) status = badConfig(kj::arrayPtr(problem, 1));
  }
  PolicyStore policy(paths.policyFolder, paths.grantsFolder);
  KJ_IF_MAYBE (lines, policy.reload()) {
    for (auto& line : *lines) logEvent(LogLevel::ERROR, "policy-error", line);
    return EXIT_BAD_CONFIG;
  }
  for (auto& warning : policy.warnings()) logEvent(LogLevel::WARNING, "policy-warning", warning);
  return status;
}

enum class Ending { KEEP_SESSIONS, END_SESSIONS };

int serve(const Options& options) {
  Paths paths(options.root.c_str());
  auto presence = options.config.empty() ? Presence::OPTIONAL : Presence::REQUIRED;
  auto configPath = options.config.empty() ? kj::str(paths.config) : kj::str(options.config.c_str());
  auto read = readConfig(configPath, presence);
  if (options.checkConfig) return checkConfig(paths, read);
  KJ_IF_MAYBE (lines, read.tryGet<kj::Vector<kj::String>>()) return badConfig(*lines);
  auto& config = read.get<Config>();
  auto group = findGroup(config.group);
  KJ_IF_MAYBE (problem, group.tryGet<kj::String>()) return fail(*problem);
  KJ_IF_MAYBE (error, makeFolders(paths)) return fail(error->text);
  auto lock = takeLock(paths.lock);
  KJ_IF_MAYBE (error, lock.tryGet<FileError>()) return fail(error->text);

  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  auto& timer = io.unixEventPort.getTimer();
  auto registry = Registry::open(paths.vmFolder);
  KJ_IF_MAYBE (error, registry.tryGet<FileError>()) return fail(error->text);
  auto& loaded = registry.get<Registry::Loaded>();
  for (auto& problem : loaded.problems) logEvent(LogLevel::ERROR, "registry-error", problem);

  AuditLog::Options auditOptions;
  auditOptions.fileBytes = config.auditFileBytes;
  auditOptions.files = config.auditFiles;
  auto audit = AuditLog::open(paths.auditLog, timer, io.unixEventPort, auditOptions);
  KJ_IF_MAYBE (problem, audit.tryGet<kj::String>()) return fail(*problem);
  KJ_IF_MAYBE (damage, audit.get<kj::Own<AuditLog>>()->found().damaged) {
    logEvent(LogLevel::ERROR, "audit-damaged", damage->text);
  }
  auto program = findSessionProgram(config);
  auto gid = group.get<kj::Maybe<gid_t>>();
  Daemon daemon(paths,
                {kj::mv(config), kj::mv(program), kj::mv(loaded.registry), kj::mv(audit.get<kj::Own<AuditLog>>()), gid},
                io);
  auto opened = openControlSocket(paths.controlSocket, gid);
  KJ_IF_MAYBE (error, opened.tryGet<FileError>()) return fail(error->text);
  auto& socket = opened.get<ControlSocket>();
  ControlServer control(daemon, io, kj::mv(socket.fd));

  auto metrics = serveMetrics(daemon, gid, io);

  kj::Promise<void> watchdog = nullptr;
  uint64_t watchdogMicroseconds = 0;
  if (sd_watchdog_enabled(0, &watchdogMicroseconds) > 0) {
    watchdog = feedWatchdog(timer, int64_t(watchdogMicroseconds / 3) * kj::MICROSECONDS).eagerlyEvaluate(nullptr);
  }
  auto reloading =
      reloadOnHangup(io.unixEventPort, daemon, configPath, presence).eagerlyEvaluate([](kj::Exception&& e) {
        logEvent(LogLevel::ERROR, "internal", e.getDescription());
      });
  logEvent(LogLevel::INFO, "ready", kj::str("posternd ", POSTERN_VERSION, ", control socket ", paths.controlSocket));
  sd_notify(0, "READY=1");
  // A restart keeps the sessions; Ctrl-C means that all of it shall end.
  auto ending =
      io.unixEventPort.onSignal(SIGTERM)
          .then([](siginfo_t) { return Ending::KEEP_SESSIONS; })
          .exclusiveJoin(io.unixEventPort.onSignal(SIGINT).then([](siginfo_t) { return Ending::END_SESSIONS; }))
          .wait(io.waitScope);
  sd_notify(0, "STOPPING=1");
  if (ending == Ending::END_SESSIONS || options.endSessions) daemon.stopSessions().wait(io.waitScope);
  daemon.record("posternd", "", "posternd.stop", "", "done");
  daemon.flush().catch_([](kj::Exception&&) {}).wait(io.waitScope);
  if (socket.owner == ControlSocket::Owner::POSTERND) unlink(paths.controlSocket.cStr());
  if (metrics != nullptr) {
    metrics = nullptr;
    removeLocal(KJ_ASSERT_NONNULL(daemon.settings().metricsListen));
  }
  logEvent(LogLevel::INFO, "stopped", ending == Ending::END_SESSIONS ? "sessions ended, too" : "sessions go on");
  return 0;
}

}  // namespace
}  // namespace postern::host

int main(int argc, char** argv) {
  using namespace postern::host;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a full quota is an error of write(), not the end
  for (int number : {SIGTERM, SIGINT, SIGHUP}) kj::UnixEventPort::captureSignal(number);
  // A VM costs a handful of descriptors.
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }

  Options options;
  CLI::App app("Postern's host service: knows the VMs, decides by policy, introduces. Runs in the foreground.",
               "posternd");
  app.set_version_flag("--version", POSTERN_VERSION);
  app.add_option("--root", options.root, "Every default path lies below this folder; no root rights are needed then");
  app.add_option("--config", options.config, "Settings (default: /etc/postern/postern.toml, if it is there)");
  app.add_flag("--check-config", options.checkConfig, "Say what is wrong with settings and policy, and end");
  app.add_flag("--end-sessions", options.endSessions, "End the VMs' session processes, too, when ended by SIGTERM");
  app.footer(
      "SIGHUP reads settings and policy again. SIGTERM ends posternd and leaves the sessions with the guests for the\n"
      "next one; SIGINT (Ctrl-C) ends them, too.");
  CLI11_PARSE(app, argc, argv);
  setUpLog("posternd");
  if (!options.root.empty()) {
    char resolved[4096];
    if (realpath(options.root.c_str(), resolved) == nullptr) {
      return fail(kj::str("--root ", options.root.c_str(), ": ", postern::errorWords(errno)));
    }
    options.root = resolved;
    if (options.root == "/") options.root.clear();
  }
  int status = 1;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { status = serve(options); })) {
    return fail(exception->getDescription());
  }
  return status;
}
