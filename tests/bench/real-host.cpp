#include "tests/bench/real-host.h"

#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdlib.h>

#include "host/files/files.h"

namespace postern::bench {

namespace {

constexpr auto TRY_AGAIN = 20 * kj::MILLISECONDS;
constexpr int ATTEMPTS = 3000;  // a minute; only a posternd that died is waited for in vain
constexpr size_t LOG_TAIL_BYTES = 4000;

void makeFolderOf(kj::StringPtr path) {
  auto folder = kj::heapString(path.begin(), KJ_ASSERT_NONNULL(path.findLast('/')));
  KJ_REQUIRE(host::makeFolder(folder, 0700) == nullptr, "cannot make a folder", folder);
}

bool isSession(pid_t pid) {
  auto read = host::readFile(kj::str("/proc/", pid, "/cmdline"), 4096);
  return read.is<kj::String>() && kj::StringPtr(read.get<kj::String>().cStr()).endsWith("/postern-session");
}

}  // namespace

RealHost::RealHost(kj::AsyncIoContext& io) : root(folder.path("host")), paths(root), io(io) {
  for (auto* path : {&paths.config, &paths.controlSocket, &paths.auditLog}) makeFolderOf(*path);
  for (auto* path : {&paths.vmFolder, &paths.policyFolder}) {
    KJ_REQUIRE(host::makeFolder(*path, 0700) == nullptr, "cannot make a folder", *path);
  }
}

RealHost::~RealHost() noexcept(false) {
  auto left = sessions();
  KJ_IF_MAYBE (d, daemon) (*d)->end(SIGINT);
  for (auto pid : left) {
    if (isSession(pid)) kill(pid, SIGKILL);
  }
}

void RealHost::start() {
  daemon = nullptr;
  auto program = builtProgram("host/posternd");
  daemon = kj::heap<ChildProcess>(kj::ArrayPtr<const kj::StringPtr>({program, "--root"_kj, root}), path("log"));
}

kj::Vector<pid_t> RealHost::sessions() const {
  kj::Vector<pid_t> all;
  auto files = host::listFolder(paths.sessionFolder, ".pid");
  if (!files.is<kj::Vector<kj::String>>()) return all;
  for (auto& file : files.get<kj::Vector<kj::String>>()) {
    auto text = host::readFile(kj::str(paths.sessionFolder, '/', file), 256);  // behind the number: its build
    if (!text.is<kj::String>()) continue;
    auto pid = static_cast<pid_t>(strtol(text.get<kj::String>().cStr(), nullptr, 10));
    if (pid > 1 && isSession(pid)) all.add(pid);
  }
  return all;
}

kj::Own<client::ControlClient> RealHost::connect() {
  for (int i = 0; i < ATTEMPTS; ++i) {
    auto outcome =
        client::ControlClient::connect(*io.lowLevelProvider, io.unixEventPort.getTimer(), paths.controlSocket)
            .wait(io.waitScope);
    if (outcome.is<kj::Own<client::ControlClient>>()) return kj::mv(outcome.get<kj::Own<client::ControlClient>>());
    io.unixEventPort.getTimer().afterDelay(TRY_AGAIN).wait(io.waitScope);
  }
  KJ_FAIL_REQUIRE("posternd does not answer", logged());
}

kj::Own<client::VmClient> RealHost::openVm(client::ControlClient& control, kj::StringPtr vm, kj::StringPtr call) {
  kj::String why;
  for (int i = 0; i < ATTEMPTS; ++i) {
    auto outcome = control.openVm(vm, kj::arrayPtr(&call, 1)).wait(io.waitScope);
    if (outcome.is<kj::Own<client::VmClient>>()) return kj::mv(outcome.get<kj::Own<client::VmClient>>());
    why = kj::str(outcome.get<client::Failure>().text);
    io.unixEventPort.getTimer().afterDelay(TRY_AGAIN).wait(io.waitScope);
  }
  KJ_FAIL_REQUIRE("the VM's session is not opened", vm, why, logged());
}

kj::String RealHost::enroll(kj::StringPtr vm, kj::StringPtr transport, kj::StringPtr grant) {
  auto program = builtProgram("host/postern");
  auto bundle = path(kj::str(vm, ".bundle"));
  ChildProcess postern(kj::ArrayPtr<const kj::StringPtr>({program, "--root"_kj, root, "enroll"_kj, vm, "--transport"_kj,
                                                          transport, "--grant"_kj, grant, "--bundle-file"_kj, bundle}),
                       path("log"));
  KJ_REQUIRE(postern.wait() == 0, "postern enroll", logged());
  return bundle;
}

kj::String RealHost::logged() const {
  auto text = host::readFile(path("log"), size_t(64) << 20);
  if (!text.is<kj::String>()) return kj::String();
  auto& all = text.get<kj::String>();
  return kj::heapString(all.slice(all.size() > LOG_TAIL_BYTES ? all.size() - LOG_TAIL_BYTES : 0));
}

}  // namespace postern::bench
