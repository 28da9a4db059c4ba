#include "tests/bench/real-agent.h"

#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>

#include "host/files/files.h"
#include "tests/bench/process-figures.h"

namespace postern::bench {

namespace {

constexpr auto TRY_AGAIN = 20 * kj::MILLISECONDS;
constexpr int ATTEMPTS = 3000;

}  // namespace

RealAgent::RealAgent(RealHost& host, kj::StringPtr vm, kj::StringPtr grant, kj::Maybe<kj::StringPtr> socket,
                     kj::Maybe<kj::StringPtr> agentToml)
    : log(host.path(kj::str(vm, ".log"))) {
  auto listener = listenerOf(host, vm);
  auto bundle = host.enroll(vm, kj::str("unix:", listener), grant);
  auto transport = kj::str("unix:", socket.orDefault(listener));
  auto root = host.path(kj::str(vm, ".root"));
  KJ_REQUIRE(host::makeFolder(root, 0700) == nullptr, "cannot make a folder", root);
  KJ_IF_MAYBE (text, agentToml) {
    auto folder = kj::str(root, "/etc/postern");
    std::filesystem::create_directories(folder.cStr());
    KJ_REQUIRE(host::replaceFile(kj::str(folder, "/agent.toml"), *text, 0600) == nullptr);
  }
  auto program = builtProgram("guest-agent/postern-agent");
  process = kj::heap<ChildProcess>(kj::ArrayPtr<const kj::StringPtr>({program, "--root"_kj, root, "--connect"_kj,
                                                                      transport, "--bundle-file"_kj, bundle}),
                                   log);
}

RealAgent::~RealAgent() noexcept(false) {
  process->end(SIGTERM);
}

void RealAgent::untilConnected(client::VmClient& vm, kj::AsyncIoContext& io) {
  kj::String why;
  for (int i = 0; i < ATTEMPTS; ++i) {
    auto answer = vm.calls().pingRequest().send().wait(io.waitScope);
    if (!answer.hasFailure()) return;
    why = kj::str(answer.getFailure().getText());
    io.unixEventPort.getTimer().afterDelay(TRY_AGAIN).wait(io.waitScope);
  }
  auto said = host::readFile(log, size_t(16) << 20);
  KJ_FAIL_REQUIRE("the agent does not connect", why,
                  said.is<kj::String>() ? kj::mv(said.get<kj::String>()) : kj::String());
}

pid_t RealAgent::agent() const {
  for (auto& entry : std::filesystem::directory_iterator("/proc")) {
    auto pid = static_cast<pid_t>(atoi(entry.path().filename().c_str()));
    if (pid > 0 && parentOf(pid) == process->pid()) return pid;
  }
  KJ_FAIL_REQUIRE("postern-agent has no child", process->pid());
}

}  // namespace postern::bench
