// What a program of the host sees of channels and ports, and what an administrator does about them: Control of a whole
// Daemon, whose VMs have no session process.

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <unistd.h>

#include <string>

#include "host/board/board-reader.h"
#include "host/control/channel-id.h"
#include "host/daemon/control-calls.h"
#include "host/daemon/event-stream.h"
#include "tests/support/temporary-folder.h"

namespace postern::host {
namespace {

using Kind = schema::Failure::Kind;

constexpr const char* RULES = R"(policy = 1
vm-to-vm = "enabled"
[[allow]]
id = "see"
from = "user:alice"
to = ["web1", "web2"]
call = "status.read"
[[allow]]
id = "block"
from = "user:bob"
to = "host"
call = "admin.block"
[[allow]]
id = "bob-sees"
from = "user:bob"
to = "any"
call = "status.read"
[[allow]]
id = "pg"
from = "web1"
to = ["web2", "db1"]
call = "service.pg"
)";

class DaemonLab {
 public:
  postern::test::TemporaryFolder folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  Paths paths{folder.path("root")};
  CallBucket bucket{io.unixEventPort.getTimer(), 100'000, 100'000};
  kj::Maybe<kj::Own<Daemon>> running;

  DaemonLab() {
    for (auto* path : {&paths.policyFolder, &paths.grantsFolder, &paths.vmFolder, &paths.sessionFolder}) {
      KJ_REQUIRE(makeFolder(*path, 0700) == nullptr);
    }
    KJ_REQUIRE(makeFolder(folder.path("root/var/log/postern"), 0700) == nullptr);
    policy(RULES);
    start();
    for (auto name : {"web1", "web2", "db1"}) add(name);
  }
  void start() {
    auto registry = Registry::open(paths.vmFolder);
    auto audit = AuditLog::open(paths.auditLog, io.unixEventPort.getTimer(), io.unixEventPort);
    KJ_REQUIRE(audit.is<kj::Own<AuditLog>>());
    running = nullptr;
    running = kj::heap<Daemon>(
        paths,
        Daemon::Parts{Config(), kj::str("/bin/false"), kj::mv(registry.get<Registry::Loaded>().registry),
                      kj::mv(audit.get<kj::Own<AuditLog>>()), nullptr},
        io);
  }
  void restart() {
    running = nullptr;
    start();
  }
  Daemon& daemon() { return *KJ_REQUIRE_NONNULL(running); }
  void policy(kj::StringPtr text) {
    KJ_REQUIRE(replaceFile(kj::str(paths.policyFolder, "/p.toml"), text, 0644) == nullptr);
  }
  void add(kj::StringPtr name) {
    VmRecord record;
    record.name = kj::str(name);
    for (size_t i = 0; i < 4; ++i) record.uuid.bytes[i] = static_cast<kj::byte>(name[i % name.size()]);
    record.uuid.bytes[5] = static_cast<kj::byte>(name.size() + static_cast<size_t>(name[name.size() - 1]));
    record.transport = kj::str("unix:", folder.path(name), ".sock");
    KJ_REQUIRE(daemon().addVm(kj::mv(record)) == nullptr);
  }
  schema::Control::Client as(kj::StringPtr user, bool isAdministrator = false) {
    auto caller = kj::atomicRefcounted<LocalCaller>();
    caller->uid = 4711;
    caller->user = kj::str(user);
    caller->isAdministrator = isAdministrator;
    return newControl(daemon(), bucket, kj::Own<const LocalCaller>(kj::mv(caller)));
  }
  // As a session would have claimed it.
  void channel(uint64_t id, kj::StringPtr from, kj::StringPtr to) {
    ChannelClaims claims;
    ChannelClaim claim;
    claim.id = id;
    claim.way = ChannelClaim::Way::ASKED;
    claim.to = kj::str(to);
    claim.service = kj::str("pg");
    claim.rule = kj::str("pg");
    claim.openFor = 3 * kj::SECONDS;
    claims.good.add(kj::mv(claim));
    daemon().channelDesk().adopt(KJ_REQUIRE_NONNULL(daemon().findVm(from)), kj::mv(claims));
  }
  kj::String listed(schema::Control::Client control, kj::StringPtr vm = "") {
    auto request = control.channelsRequest();
    request.setVm(vm);
    auto answer = request.send().wait(io.waitScope);
    if (answer.hasFailure()) return kj::str("failed: ", answer.getFailure().getText());
    kj::Vector<kj::String> lines;
    for (auto channel : answer.getChannels()) {
      lines.add(kj::str(channel.getId(), ' ', channel.getFrom(), ' ', channel.getTo(), ' ', channel.getService(), ' ',
                        channel.getRule()));
    }
    return kj::strArray(lines, ", ");
  }
  capnp::Response<schema::Control::BlockPortResults> block(schema::Control::Client control, kj::StringPtr vm,
                                                           bool blocked) {
    auto request = control.blockPortRequest();
    request.setVm(vm);
    request.setBlocked(blocked);
    return request.send().wait(io.waitScope);
  }
  kj::String auditText() {
    auto read = readFile(paths.auditLog, 1 << 20);
    return kj::mv(read.get<kj::String>());
  }
};

bool says(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

// T110
TEST_CASE("a channel is shown to those who may know of all its VMs") {
  DaemonLab lab;
  lab.channel(1, "web1", "web2");
  lab.channel(2, "web1", "db1");
  CHECK((lab.listed(lab.as("alice")) == "1 vm:web1 vm:web2 pg pg"));
  auto all = lab.listed(lab.as("root", true));
  CHECK(says(all, "1 vm:web1 vm:web2"));
  CHECK(says(all, "2 vm:web1 vm:db1"));
  CHECK((lab.listed(lab.as("eve")) == ""));
  CHECK((lab.listed(lab.as("alice"), "web2") == "1 vm:web1 vm:web2 pg pg"));
  CHECK((lab.listed(lab.as("root", true), "db1") == "2 vm:web1 vm:db1 pg pg"));
  CHECK(says(lab.listed(lab.as("alice"), "db1"), "there is no VM db1"));
  CHECK(says(lab.listed(lab.as("alice"), "no such"), "there is no VM"));
}

TEST_CASE("ports and the counters of rules are shown to those who may see their VMs") {
  DaemonLab lab;
  auto& web = KJ_REQUIRE_NONNULL(lab.daemon().findVm("web1"));
  PortClaim claim;
  claim.counters.opened = 5;
  claim.rules.add(RuleClaim{kj::str("pg"), {4, 0, 1, {100, 0, 0, 0, 0}}});
  web.port().claimed(kj::mv(claim));
  web.port().denied("no-rule");
  auto ask = [&](schema::Control::Client control, kj::StringPtr vm) {
    auto request = control.portsRequest();
    request.setVm(vm);
    return request.send().wait(lab.io.waitScope);
  };
  auto seen = ask(lab.as("alice"), "");
  CHECK(seen.getPorts().size() == 2);
  auto one = ask(lab.as("alice"), "web1");
  REQUIRE(one.getPorts().size() == 1);
  auto port = one.getPorts()[0];
  CHECK((port.getVm() == "web1"));
  CHECK(port.getOpened() == 5);
  CHECK(port.getDenied() == 1);
  CHECK((port.getLastDeniedRule() == "no-rule"));
  CHECK_FALSE(port.getBlocked());
  REQUIRE(one.getRules().size() == 1);
  CHECK((one.getRules()[0].getRule() == "pg"));
  CHECK((one.getRules()[0].getVm() == "web1"));
  CHECK(one.getRules()[0].getTraffic().getBytesThere() == 100);
  CHECK(ask(lab.as("alice"), "db1").hasFailure());
  CHECK(ask(lab.as("eve"), "").getPorts().size() == 0);
  CHECK(ask(lab.as("root", true), "").getPorts().size() == 3);
}

// T112
TEST_CASE("a port is blocked with admin.block alone; that cuts, shows, is written down, and outlives posternd") {
  DaemonLab lab;
  lab.channel(1, "web1", "web2");
  auto refused = lab.block(lab.as("alice"), "web1", true);
  REQUIRE(refused.hasFailure());
  CHECK((refused.getFailure().getKind() == Kind::DENIED));
  CHECK((lab.listed(lab.as("alice")) == "1 vm:web1 vm:web2 pg pg"));
  CHECK(lab.block(lab.as("bob"), "nobody", true).hasFailure());
  auto done = lab.block(lab.as("bob"), "web2", true);
  CHECK_FALSE(done.hasFailure());
  CHECK(done.getCut() == 1);
  CHECK(says(lab.auditText(), R"("who":"user:bob","vm":"web2","call":"port.block","outcome":"done")"));
  auto isBlocked = [&]() {
    auto request = lab.as("root", true).portsRequest();
    request.setVm("web2");
    auto port = request.send().wait(lab.io.waitScope);
    return port.getPorts()[0].getBlocked() && port.getPorts()[0].getBlockedByHand();
  };
  auto onBoard = [&]() {
    auto board = BoardReader::open(lab.paths.board);
    auto snapshot = board.get<kj::Own<BoardReader>>()->snapshot(kj::systemPreciseMonotonicClock().now());
    for (auto& vm : snapshot.vms) {
      if (vm.name == "web2") return vm.port.blockedByHand;
    }
    return false;
  };
  CHECK(isBlocked());
  CHECK(onBoard());
  lab.restart();
  CHECK(isBlocked());
  CHECK(onBoard());
  auto& web = KJ_REQUIRE_NONNULL(lab.daemon().findVm("web1"));
  auto& db = KJ_REQUIRE_NONNULL(lab.daemon().findVm("web2"));
  CHECK_FALSE(lab.daemon().decisions().decideService(web.record(), db.record(), "pg").isAllowed());
  CHECK_FALSE(lab.block(lab.as("bob"), "web2", false).hasFailure());
  CHECK_FALSE(onBoard());
  CHECK(lab.daemon().decisions().decideService(web.record(), db.record(), "pg").isAllowed());
  lab.restart();
  CHECK_FALSE(isBlocked());
}

TEST_CASE("settings of a VM that change leave its port blocked; a VM that is removed takes the block with it") {
  DaemonLab lab;
  lab.block(lab.as("bob"), "web2", true);
  auto request = lab.as("root", true).setVmRequest();
  request.initVm().setName("web2");
  request.getVm().initTags(1).set(0, "x");
  CHECK_FALSE(request.send().wait(lab.io.waitScope).hasFailure());
  CHECK(lab.daemon().decisions().isBlockedByHand("web2"));
  auto removing = lab.as("root", true).removeVmRequest();
  removing.setName("web2");
  CHECK_FALSE(removing.send().wait(lab.io.waitScope).hasFailure());
  lab.add("web2");
  CHECK_FALSE(lab.daemon().decisions().isBlockedByHand("web2"));
}

TEST_CASE("a channel is closed with admin.block alone, and only one that the caller may see") {
  DaemonLab lab;
  lab.channel(0xabc, "web1", "db1");
  auto close = [&](schema::Control::Client control, uint64_t id) {
    auto request = control.closeChannelRequest();
    request.setId(id);
    return request.send().wait(lab.io.waitScope);
  };
  CHECK((close(lab.as("alice"), 0xabc).getFailure().getKind() == Kind::DENIED));
  auto unknown = close(lab.as("bob"), 0xdef);
  CHECK((unknown.getFailure().getKind() == Kind::INVALID));
  CHECK(says(unknown.getFailure().getText(), formatChannelId(0xdef)));
  lab.policy(std::string(std::string(RULES) +
                         "[[deny]]\nid = \"n\"\nfrom = \"user:bob\"\nto = \"db1\"\ncall = \"status.read\"\n")
                 .c_str());
  lab.daemon().reload(lab.paths.config, Presence::OPTIONAL);
  CHECK((close(lab.as("bob"), 0xabc).getFailure().getKind() == Kind::INVALID));
  CHECK_FALSE(close(lab.as("root", true), 0xabc).hasFailure());
  CHECK(says(lab.auditText(), R"("call":"channel.cut","outcome":"done","channel":"0000000000000abc")"));
}

TEST_CASE("a reload cuts what it forbids: by policy, by the master switch, by the removal of a VM") {
  DaemonLab lab;
  lab.channel(1, "web1", "web2");
  lab.channel(2, "web1", "db1");
  auto isOver = [&](kj::StringPtr why) {
    for (int i = 0; i < 5000 && !says(lab.auditText(), kj::str("\"why\":\"", why)); ++i) {
      lab.io.waitScope.poll();
      usleep(1000);
    }
    return says(lab.auditText(), kj::str("\"why\":\"", why));
  };
  auto removing = lab.as("root", true).removeVmRequest();
  removing.setName("db1");
  CHECK_FALSE(removing.send().wait(lab.io.waitScope).hasFailure());
  CHECK(isOver("removed"));
  CHECK((lab.listed(lab.as("root", true)) == "1 vm:web1 vm:web2 pg pg"));
  std::string off = RULES;
  off.replace(off.find("enabled"), 7, "disabled");
  lab.policy(off.c_str());
  lab.daemon().reload(lab.paths.config, Presence::OPTIONAL);
  CHECK(isOver("policy"));
  CHECK((lab.listed(lab.as("root", true)) == ""));
}

TEST_CASE("service.* is granted to whoever may use any service of the VM") {
  DaemonLab lab;
  lab.policy(std::string(std::string(RULES) + R"(
[[allow]]
id = "ssh"
from = "user:alice"
to = "web1"
call = "service.ssh"
)")
                 .c_str());
  lab.daemon().reload(lab.paths.config, Presence::OPTIONAL);
  auto ask = [&](kj::StringPtr user, kj::StringPtr vm, kj::StringPtr call) {
    auto request = lab.as(user).openRequest();
    request.setVm(vm);
    request.initCalls(1).set(0, call);
    auto answer = request.send().wait(lab.io.waitScope);
    return answer.getFailure().getKind();
  };
  // Granted: what is missing is a session process.
  CHECK((ask("alice", "web1", "service.*") == Kind::NOT_CONNECTED));
  CHECK(says(lab.auditText(), R"("who":"user:alice","vm":"web1","call":"service.*","outcome":"allowed")"));
  CHECK((ask("alice", "web2", "service.*") == Kind::DENIED));
  CHECK((ask("bob", "web1", "service.*") == Kind::DENIED));
  CHECK((ask("alice", "web1", "info.*") == Kind::INVALID));
}

// T110
TEST_CASE("an event that names another VM is told to those who may know of both") {
  DaemonLab lab;
  struct Sink final : public schema::EventSink::Server {
    kj::Vector<kj::String>& seen;
    explicit Sink(kj::Vector<kj::String>& seen) : seen(seen) {}
    kj::Promise<void> event(EventContext context) override {
      seen.add(kj::str(context.getParams().getEvent().getText()));
      return kj::READY_NOW;
    }
  };
  auto& records = lab.daemon().recording();
  records.tell("web1", "denied", kj::str("of-web2"), "web2");
  records.tell("web1", "denied", kj::str("of-db1"), "db1");
  records.tell("web1", "denied", kj::str("of-nobody"), "nobody");
  auto heard = [&](schema::Control::Client control) {
    kj::Vector<kj::String> seen;
    auto request = control.eventsRequest();
    request.setVm("web1");
    request.setBacklog(3);
    request.setSink(kj::heap<Sink>(seen));
    request.send().wait(lab.io.waitScope);
    return kj::strArray(seen, " ");
  };
  CHECK((heard(lab.as("alice")) == "of-web2"));
  CHECK((heard(lab.as("root", true)) == "of-web2 of-db1 of-nobody"));
}

}  // namespace
}  // namespace postern::host
