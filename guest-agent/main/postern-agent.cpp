// postern-agent: broker and agent are one program. Only wires; see guest-agent/agent/supervisor.h.
#include <kj/async-unix.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>

#include "guest-agent/agent/agent-process.h"
#include "guest-agent/agent/join.h"
#include "guest-agent/agent/supervisor.h"
#include "guest-agent/doctor/doctor.h"
#include "guest-agent/files/opener-process.h"
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
  bool json = false;
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

// --connect; null: auto. Or what is wrong with it.
kj::OneOf<kj::Maybe<Endpoint>, kj::String> parseConnect(const std::string& text) {
  if (text.empty() || text == "auto") return kj::Maybe<Endpoint>();
  auto endpoint = parseEndpoint(kj::StringPtr(text.c_str(), text.size()));
  if (endpoint.is<EndpointError>()) return kj::str("--connect: ", endpoint.get<EndpointError>().text);
  if (endpoint.get<Endpoint>().is<HybridEndpoint>()) {
    return kj::str("--connect: hybrid: is the host's side; a guest connects to vsock:2");
  }
  return kj::Maybe<Endpoint>(kj::mv(endpoint.get<Endpoint>()));
}

kj::Maybe<kj::StringPtr> credentialsFolder() {
  const char* credentials = getenv("CREDENTIALS_DIRECTORY");
  if (credentials == nullptr) return nullptr;
  return kj::StringPtr(credentials);
}

int supervise(const CommandLine& line, kj::StringPtr root, kj::Maybe<Endpoint> connect) {
  SupervisorOptions options{root, given(line.config), kj::mv(connect), given(line.bundleFile), credentialsFolder()};
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
  if (argc == 2 && strcmp(argv[1], "--opener") == 0) return runOpener();
  if (is(1, "--probe")) return runProbe(argv[2]);
  if (is(1, AGENT_PROCESS_OPTION.cStr()) && is(3, "--state-file")) {
    return runAgentProcess({argv[4], kj::StringPtr(argv[2]).parseAs<int>()});
  }
  return nullptr;
}

int run(int argc, char** argv) {
  // What the broker starts as /proc/self/exe would be "exe" to ps and to the doctor.
  prctl(PR_SET_NAME, "postern-agent");
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
  auto* doctor =
      app.add_subcommand("doctor", "Looks at each link from settings to agent; says what mends a broken one");
  doctor->fallthrough();
  doctor->add_flag("--json", line.json, "As one JSON document");
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
  auto connect = parseConnect(line.connect);
  KJ_IF_MAYBE (problem, connect.tryGet<kj::String>()) return usage(*problem);
  auto endpoint = kj::mv(connect.get<kj::Maybe<Endpoint>>());
  if (doctor->parsed()) {
    setUpLog(LogForm::TEXT, "doctor");
    return runDoctor(
        {root, given(line.config), kj::mv(endpoint), given(line.bundleFile), credentialsFolder(), line.json});
  }
  return supervise(line, root, kj::mv(endpoint));
}

}  // namespace
}  // namespace postern::guest

int main(int argc, char** argv) {
  return postern::guest::run(argc, argv);
}
