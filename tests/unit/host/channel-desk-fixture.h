#pragma once
// ChannelDeskLab: Channels with a real policy, a real audit log, real sockets and programs; and VMs whose session
// processes are the test's hand (LabVm): what they are asked is kept, and what they answer is told to them.

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "host/daemon/channels.h"
#include "host/files/files.h"
#include "host/local-rpc/local-rpc.h"
#include "tests/support/temporary-folder.h"

namespace postern::host::test {

using Outcome = schema::ServeOutcome;

class LabVm final : public ChannelVm {
 public:
  VmRecord vm;
  bool quarantined = false;
  bool reachable = true;
  bool attached = false;  // for Channels::adopt()
  PortCounters counters;
  unsigned timesShown = 0;
  kj::Vector<uint64_t> cuts;
  kj::Vector<kj::String> restarts;
  bool answersCuts = true;
  bool letsIn = true;                           // its limits do
  unsigned entrances = 0;                       // that were asked for
  kj::Maybe<kj::Promise<void>> beforeEntering;  // they wait for this

  // The last that came by serve().
  kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> served;
  kj::String servedCaller, servedService;
  kj::AutoCloseFd hop;
  Outcome outcome = Outcome::REACHED;
  kj::Maybe<kj::Promise<void>> before;  // it waits for this

  explicit LabVm(kj::StringPtr name) {
    vm.name = kj::str(name);
    vm.transport = kj::str("unix:/run/vm/", name);
  }
  schema::Flow::Reader flow() { return KJ_REQUIRE_NONNULL(served)->getRoot<schema::Flow>().asReader(); }

  const VmRecord& record() const override { return vm; }
  bool isQuarantined() const override { return quarantined; }
  bool isAttached() const override { return attached; }
  bool isReachable() const override { return reachable; }
  PortCounters& port() override { return counters; }
  void showPort() override { ++timesShown; }
  kj::Promise<Outcome> serve(Serving serving) override;
  kj::Promise<void> cutChannels(kj::ArrayPtr<const uint64_t> ids) override {
    cuts.addAll(ids);
    return answersCuts ? kj::Promise<void>(kj::READY_NOW) : kj::Promise<void>(kj::NEVER_DONE);
  }
  void restartSession(kj::StringPtr why) override { restarts.add(kj::str(why)); }
};

// What posternd answered to a question.
struct LabAnswer {
  kj::Own<capnp::MallocMessageBuilder> message;
  kj::Own<capnp::MallocMessageBuilder> passed;  // by its entrance
  kj::AutoCloseFd socket;
  kj::AutoCloseFd mirror;  // null: none, or not reached

  bool isAllowed() { return results().getAllowed(); }
  schema::Flow::Reader flow() { return passed->getRoot<schema::Flow>().asReader(); }
  schema::SessionObserver::ConnectResults::Reader results() {
    return message->getRoot<schema::SessionObserver::ConnectResults>().asReader();
  }
};

class ChannelDeskLab {
 public:
  postern::test::TemporaryFolder folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::UnixEventPort& port = io.unixEventPort;
  kj::TreeMap<kj::String, kj::Own<LabVm>> vms;
  PolicyStore store;
  Decisions decisions;
  Records records;
  LiveGrants grants;
  kj::Own<Channels> channels;

  ChannelDeskLab();
  kj::Own<Channels> makeChannels();
  kj::Own<AuditLog> openAudit();

  LabVm& add(kj::StringPtr name);
  // The whole policy but for its first line; channels are decided again by recheck().
  void policy(const std::string& rules);

  kj::Promise<LabAnswer> asking(LabVm& vm, uint64_t id, kj::StringPtr to, kj::StringPtr service);
  LabAnswer ask(LabVm& vm, uint64_t id, kj::StringPtr to, kj::StringPtr service) {
    return asking(vm, id, to, service).wait(io.waitScope);
  }
  void close(LabVm& vm, uint64_t id, kj::StringPtr why, uint64_t there = 0, uint64_t back = 0);

  // A service of the host that listens on a Unix socket.
  kj::AutoCloseFd listen(kj::StringPtr name);
  void serveUnix(kj::StringPtr service, kj::StringPtr socket, bool proxy = false);

  kj::String auditText();
  unsigned linesWith(kj::StringPtr part);
  unsigned eventsOf(kj::StringPtr kind);

  template <typename Condition>
  bool soon(Condition&& condition) {
    for (int i = 0; i < 10'000; ++i) {
      if (condition()) return true;
      io.waitScope.poll();
      usleep(1000);
    }
    return false;
  }
};

// Two VMs, one of which may reach the other, and both a service of the host.
constexpr const char* PAIR = R"(
vm-to-vm = "enabled"
[[allow]]
id = "pg"
from = "web1"
to = "db1"
call = "service.postgres"
limit = { rate = "1 MiB/s", open = 0 }
[[allow]]
id = "cache"
from = "any"
to = "host"
call = "service.cache"
limit = { calls = "60/h" }
[port.web1]
rate = "2 MiB/s"
[port.db1]
rate = "3 MiB/s"
bytes = "0 B"
)";

struct PairLab : ChannelDeskLab {
  LabVm& web = add("web1");
  LabVm& db = add("db1");
  kj::AutoCloseFd cache = listen("cache.sock");

  PairLab() {
    policy(PAIR);
    serveUnix("cache", "cache.sock");
  }
  kj::AutoCloseFd acceptCache() { return kj::AutoCloseFd(accept4(cache, nullptr, nullptr, SOCK_CLOEXEC)); }
};

// This process may have descriptors below a number alone, until it goes.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t below) {
    KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &before));
    struct rlimit limited = before;
    limited.rlim_cur = below;
    KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limited));
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before); }
  KJ_DISALLOW_COPY(DescriptorLimit);

 private:
  struct rlimit before;
};

// What a session says to a new posternd.
ChannelClaim claimed(uint64_t id, kj::StringPtr to, kj::StringPtr service);
ChannelClaim claimedFrom(uint64_t id, kj::StringPtr from, kj::StringPtr service);
void adopt(ChannelDeskLab& lab, LabVm& vm, ChannelClaim claim);

bool says(kj::StringPtr text, kj::StringPtr part);
// A byte travels from one to the other.
bool isConnected(int from, int to);
// Reads as ended or reset.
bool isOver(int socket);

}  // namespace postern::host::test
