// Decisions, with what is blocked by hand; and the numbers that sessions get.

#include "host/daemon/decisions.h"

#include "host/control/channel-id.h"
#include "host/daemon/limits-in-use.h"
#include "host/daemon/policy-limits.h"
#include "tests/unit/host/channel-desk-fixture.h"

namespace postern::host {
namespace {

using policy::Reason;
using test::ChannelDeskLab;
using test::says;

constexpr const char* RULES = R"(
vm-to-vm = "enabled"
[[allow]]
id = "a"
from = "user:alice"
to = ["web1", "db1"]
call = ["ping", "status.read", "file.get", "service.ssh"]
[[allow]]
id = "v"
from = "web1"
to = "db1"
call = "service.pg"
[[allow]]
id = "h"
from = "any"
to = "host"
call = "service.cache"
)";

kj::Own<const LocalCaller> alice() {
  auto caller = kj::atomicRefcounted<LocalCaller>();
  caller->user = kj::str("alice");
  return caller;
}

struct DecisionLab : ChannelDeskLab {
  kj::Own<const LocalCaller> who = alice();
  VmRecord web, db;
  DecisionLab() {
    web.name = kj::str("web1");
    db.name = kj::str("db1");
    policy(RULES);
  }
  bool allows(kj::StringPtr call, kj::Maybe<kj::StringPtr> path = nullptr) {
    return decisions.decide(*who, web, call, path).isGranted();
  }
};

// T112
TEST_CASE("a port that is blocked by hand denies everything but status.read, in the policy's own words") {
  DecisionLab lab;
  for (auto call : {"ping", "status.read", "service.ssh"}) CHECK(lab.allows(call));
  CHECK(lab.allows("file.get", "/etc/hosts"_kj));
  CHECK(lab.decisions.decideService(lab.web, lab.db, "pg").isAllowed());
  CHECK(lab.decisions.decideService(lab.web, nullptr, "cache").isAllowed());
  CHECK(lab.decisions.decideAnyService(*lab.who, lab.web).isGranted());
  lab.decisions.setBlocked("web1", true);
  CHECK(lab.allows("status.read"));
  CHECK(lab.decisions.isVisible(*lab.who, lab.web));
  for (auto call : {"ping", "service.ssh"}) CHECK_FALSE(lab.allows(call));
  CHECK_FALSE(lab.allows("file.get", "/etc/hosts"_kj));
  CHECK_FALSE(lab.allows("file.get", "/"_kj));  // nor what lies below
  CHECK_FALSE(lab.decisions.decideService(lab.web, lab.db, "pg").isAllowed());
  CHECK_FALSE(lab.decisions.decideService(lab.web, nullptr, "cache").isAllowed());
  CHECK_FALSE(lab.decisions.decideAnyService(*lab.who, lab.web).isGranted());
  auto decided = lab.decisions.decide(*lab.who, lab.web, "ping").decision;
  CHECK((decided.reason == Reason::BLOCKED_PORT));
  CHECK((word(decided.reason) == "blocked-port"));
  CHECK((decided.toString() == "denied: the port of web1 is blocked (by hand)"));
  // As the target, too; and nobody else's.
  CHECK(lab.decisions.decide(*lab.who, lab.db, "ping").isGranted());
  lab.decisions.setBlocked("web1", false);
  lab.decisions.setBlocked("db1", true);
  CHECK((lab.decisions.decideService(lab.web, lab.db, "pg").reason == Reason::BLOCKED_PORT));
  CHECK(lab.decisions.decideService(lab.web, nullptr, "cache").isAllowed());
  CHECK(lab.allows("ping"));
  // It is for the administrator to unblock it: no text of a policy would.
  CHECK((lab.decisions.advise(*lab.who, lab.db, "ping").toml == nullptr));
}

// T112
TEST_CASE("administrators are exempt, and what is impossible stays so, whatever is blocked") {
  DecisionLab lab;
  lab.decisions.setBlocked("web1", true);
  auto root = kj::atomicRefcounted<LocalCaller>();
  root->isAdministrator = true;
  CHECK(lab.decisions.decideOnHost(*root, "admin.block").isAllowed());
  CHECK((lab.decisions.decide(*lab.who, lab.web, "no.such").decision.reason == Reason::UNKNOWN_CALL));
  CHECK((lab.decisions.decideService(lab.web, lab.web, "pg").reason == Reason::ITSELF));
}

TEST_CASE("an explanation of what is blocked by hand says how to lift that") {
  DecisionLab lab;
  policy::Request request{policy::HostCaller{"alice", nullptr}, policy::Vm{"web1", nullptr}, "ping", nullptr,
                          kj::UNIX_EPOCH};
  CHECK(lab.decisions.explain(request).allowed);
  lab.decisions.setBlocked("web1", true);
  auto explained = lab.decisions.explain(request);
  CHECK_FALSE(explained.allowed);
  CHECK(says(explained.text, "blocked (by hand)"));
  CHECK(says(explained.text, "postern channel unblock web1"));
}

TEST_CASE("whoever may use no service of a VM may not ask for their names") {
  DecisionLab lab;
  CHECK(lab.decisions.decideAnyService(*lab.who, lab.web).isGranted());
  auto eve = kj::atomicRefcounted<LocalCaller>();
  eve->user = kj::str("eve");
  CHECK_FALSE(lab.decisions.decideAnyService(*eve, lab.web).isGranted());
  lab.policy(std::string(RULES) + "[port.web1]\nblocked = true\n");
  auto blocked = lab.decisions.decideAnyService(*lab.who, lab.web);
  CHECK((blocked.decision.reason == Reason::BLOCKED_PORT));
}

// Numbers ----------------------------------------------------------------------------------------------------------

TEST_CASE("a limit says which of its numbers are bounds of 0") {
  policy::Limits limits;
  capnp::MallocMessageBuilder message;
  auto limit = message.initRoot<schema::Limit>();
  writeLimit(limits, "r", limit);
  CHECK(limit.getZero() == 0);
  limits.rate = uint64_t(0);
  limits.open = uint64_t(0);
  limits.callsPerHour = uint64_t(0);
  limits.bytes = uint64_t(0);
  limits.burst = uint64_t(5);
  writeLimit(limits, "r", limit);
  CHECK(limit.getZero() == 1 + 8 + 16 + 32);
  CHECK(limit.getBurst() == 5);
  CHECK(limit.getCalls() == 0);
}

TEST_CASE("a reload sends each session the numbers of its port, and of the rules that something passes there") {
  ChannelDeskLab lab;
  lab.policy(R"(
[[allow]]
id = "a"
from = "any"
to = "host"
call = "service.a"
limit = { open = 1 }
[[allow]]
id = "b"
from = "any"
to = "host"
call = "service.b"
limit = { open = 2 }
[[allow]]
id = "c"
from = "user:alice"
to = "web1"
call = "service.c"
[port.web1]
open = 7
)");
  GrantEntry entry{1, kj::str("web1"), {}, alice()};
  entry.granted.services.add(GrantedService{kj::str("c"), kj::str("c"), kj::String()});
  LimitsInUse inUse(lab.decisions.policy());
  inUse.add(entry);
  inUse.add("web1", "a");
  inUse.add("web1", "a");
  inUse.add("web1", "gone");
  inUse.add("db1", "b");
  capnp::MallocMessageBuilder message;
  auto sent = message.initRoot<schema::SessionControl::SetLimitsParams>();
  inUse.write("web1", sent);
  CHECK(sent.getPort().getOpen() == 7);
  REQUIRE(sent.getRules().size() == 2);
  CHECK((sent.getRules()[0].getRule() == "a"));
  CHECK(sent.getRules()[0].getOpen() == 1);
  CHECK((sent.getRules()[1].getRule() == "c"));
  CHECK(sent.getRules()[1].getOpen() == 0);
  capnp::MallocMessageBuilder other;
  auto theirs = other.initRoot<schema::SessionControl::SetLimitsParams>();
  inUse.write("db1", theirs);
  CHECK(theirs.getPort().getOpen() == 0);
  CHECK(theirs.getRules().size() == 1);
}

TEST_CASE("a channel's id is read as it is written") {
  for (uint64_t id : {uint64_t(0), uint64_t(1), uint64_t(0x0123456789abcdef), ~uint64_t(0)}) {
    CHECK(KJ_REQUIRE_NONNULL(parseChannelId(formatChannelId(id))) == id);
    CHECK(formatChannelId(id).size() == 16);
  }
  CHECK(KJ_REQUIRE_NONNULL(parseChannelId("ff")) == 255);
  for (auto bad : {"", "0x1", "g", "-1", " 1", "00000000000000001", "AB"}) CHECK((parseChannelId(bad) == nullptr));
}

}  // namespace
}  // namespace postern::host
