// postern-agent: broker and agent are one program. Only wires; see guest-agent/agent/supervisor.h.
#include <kj/async-unix.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <CLI/CLI.hpp>

#include "guest-agent/agent/agent-process.h"
#include "guest-agent/agent/join.h"
#include "guest-agent/agent/supervisor.h"
#include "guest-agent/info/probe.h"
#include "guest-agent/log/log.h"
#include "protocol/limits.h"

namespace postern::guest {
namespace {

constexpr int EXIT_USAGE = 2;

struct CommandLine {
  std::string root, config, connect, bundleFile, joinFile;
  bool checkConfig = false;
  bool force = false;
};

int usage(kj::StringPtr text) {
  fprintf(stderr, "postern-agent: %s\n", text.cStr());
  return EXIT_USAGE;
}

kj::Maybe<kj::StringPtr> given(const std::string& value) {
  if (value.empty()) return nullptr;
  return kj::StringPtr(value.c_str(), value.size());
}

int checkConfig(const Paths& paths, const CommandLine& line) {
  auto read = readConfiguration(paths, given(line.config));
  if (read.is<PolicyErrors>()) {
    for (auto& error : read.get<PolicyErrors>().lines) fprintf(stderr, "%s\n", error.cStr());
    return 1;
  }
  auto& file = read.get<Configuration>().policyFile;
  if (file.size() == 0) {
    printf("no agent.toml and no adopted grants: everything is denied\n");
  } else {
    printf("%s: good\n", file.cStr());
  }
  return 0;
}

int supervise(const CommandLine& line, kj::StringPtr root) {
  SupervisorOptions options{root, given(line.config), nullptr, given(line.bundleFile), nullptr};
  if (!line.connect.empty() && line.connect != "auto") {
    auto endpoint = parseEndpoint(kj::StringPtr(line.connect.c_str(), line.connect.size()));
    if (endpoint.is<EndpointError>()) return usage(kj::str("--connect: ", endpoint.get<EndpointError>().text));
    if (endpoint.get<Endpoint>().is<HybridEndpoint>()) {
      return usage("--connect: hybrid: is the host's side; a guest connects to vsock:2");
    }
    options.connect = kj::mv(endpoint.get<Endpoint>());
  }
  const char* credentials = getenv("CREDENTIALS_DIRECTORY");
  if (credentials != nullptr) options.credentials = kj::StringPtr(credentials);
  for (int number : {SIGHUP, SIGTERM, SIGINT}) kj::UnixEventPort::captureSignal(number);
  signal(SIGXFSZ, SIG_IGN);  // a write says it as well
  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  setUpLog(logFormOfStderr(), "broker");
  return runSupervisor(options, io);
}

// What the broker starts; not for people, and so not in the help. Null: the command line is a person's.
kj::Maybe<int> runHidden(int argc, char** argv) {
  auto is = [&](int index, const char* name) { return index + 1 < argc && strcmp(argv[index], name) == 0; };
  if (is(1, "--probe")) return runProbe(argv[2]);
  if (is(1, "--agent-process") && is(3, "--state-file")) {
    return runAgentProcess({argv[4], kj::StringPtr(argv[2]).parseAs<int>()});
  }
  return nullptr;
}

int run(int argc, char** argv) {
  KJ_IF_MAYBE (status, runHidden(argc, argv)) return *status;
  CommandLine line;
  CLI::App app(
      "Postern's guest agent: keeps an authenticated link to the host, and does what this guest's policy allows.");
  app.set_version_flag("--version", "postern-agent " POSTERN_VERSION);
  app.add_option("--root", line.root, "Folder below which every file of the agent lies");
  app.add_option("--config", line.config, "Settings and policy (/etc/postern/agent.toml)");
  app.add_option("--connect", line.connect, "Where the host is: auto, serial:PATH, vsock:CID[:PORT] or unix:PATH");
  app.add_option("--bundle-file", line.bundleFile, "Bundle to enrol with");
  app.add_flag("--check-config", line.checkConfig, "Read settings and policy, say what is wrong, and end");
  auto* join = app.add_subcommand("join", "Gives a bundle to the agent, from FILE or standard input");
  join->fallthrough();
  join->add_option("FILE", line.joinFile, "File that holds the bundle");
  join->add_flag("--force", line.force, "Although this guest is enrolled");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : EXIT_USAGE;
  }
  while (!line.root.empty() && line.root.back() == '/') line.root.pop_back();
  if (!line.root.empty() && line.root.front() != '/') return usage("--root: an absolute path, please");
  if (sodium_init() < 0) return usage("libsodium cannot start");
  kj::StringPtr root(line.root.c_str(), line.root.size());
  Paths paths(root);
  if (join->parsed()) return runJoin(paths, given(line.joinFile), line.force ? Force::YES : Force::NO);
  if (line.checkConfig) return checkConfig(paths, line);
  return supervise(line, root);
}

}  // namespace
}  // namespace postern::guest

int main(int argc, char** argv) {
  return postern::guest::run(argc, argv);
}
