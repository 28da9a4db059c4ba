// Channels: what guests ask for, what is cut, and what is written down of it.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "host/control/channel-id.h"
#include "tests/support/lingering-tcp.h"
#include "tests/unit/host/channel-desk-fixture.h"

namespace postern::host {
namespace {

using test::ChannelDeskLab;
using test::isConnected;
using test::isOver;
using test::LabAnswer;
using test::LabVm;
using test::Outcome;
using test::says;

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

rlim_t lowestFreeDescriptor() {
  return rlim_t(kj::AutoCloseFd(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)).get());
}

// What a session says to a new posternd.
ChannelClaim claimed(uint64_t id, kj::StringPtr to, kj::StringPtr service) {
  ChannelClaim claim;
  claim.id = id;
  claim.way = ChannelClaim::Way::ASKED;
  claim.to = kj::str(to);
  claim.service = kj::str(service);
  claim.rule = kj::str("pg");
  claim.openFor = 10 * kj::SECONDS;
  return claim;
}
ChannelClaim claimedFrom(uint64_t id, kj::StringPtr from, kj::StringPtr service) {
  auto claim = claimed(id, "", service);
  claim.way = ChannelClaim::Way::FROM_VM;
  claim.from = kj::str(from);
  return claim;
}
void adopt(ChannelDeskLab& lab, LabVm& vm, ChannelClaim claim) {
  ChannelClaims claims;
  claims.good.add(kj::mv(claim));
  lab.channels->adopt(vm, kj::mv(claims));
}

// Questions --------------------------------------------------------------------------------------------------------

TEST_CASE("a guest reaches a service of the host that it was granted, under its rule's limits and its port's") {
  PairLab lab;
  auto answer = lab.ask(lab.web, 7, "host", "cache");
  REQUIRE(answer.isAllowed());
  auto service = lab.acceptCache();
  CHECK(isConnected(answer.socket, service));
  CHECK(isConnected(service, answer.socket));
  auto flow = answer.flow();
  CHECK(flow.getId() == 7);
  CHECK((flow.getRule() == "cache"));
  CHECK((flow.getLimit().getRule() == "cache"));
  CHECK(flow.getLimit().getCalls() == 60);
  CHECK(flow.getLimit().getZero() == 0);
  CHECK(flow.getPort().getRate() == 2 << 20);
  CHECK((flow.getPort().getRule() == ""));
  CHECK_FALSE(flow.hasMirror());
  CHECK(lab.channels->living().size() == 1);
  CHECK(says(lab.auditText(), R"("who":"vm:web1","call":"service.cache","rule":"cache","outcome":"channel.open",)"
                              R"("channel":"0000000000000007","to":"host")"));
  lab.close(lab.web, 7, "finished", 10, 20);
  CHECK(lab.channels->living().size() == 0);
  CHECK(says(lab.auditText(),
             R"("outcome":"channel.close","duration-us":1234,"channel":"0000000000000007","to":"host",)"
             R"("why":"finished","bytes-there":10,"bytes-back":20)"));
  CHECK(isOver(service));
}

TEST_CASE("between VMs the rule is the asking session's to keep to, each port its own session's") {
  PairLab lab;
  auto answer = lab.ask(lab.web, 8, "db1", "postgres");
  REQUIRE(answer.isAllowed());
  CHECK((lab.db.servedCaller == "web1"));
  CHECK((lab.db.servedService == "postgres"));
  CHECK(isConnected(answer.socket, lab.db.hop));
  auto theirs = lab.db.flow();
  CHECK(theirs.getId() == 8);
  CHECK((theirs.getRule() == ""));
  CHECK(theirs.getLimit().getRate() == 0);
  CHECK(theirs.getPort().getRate() == 3 << 20);
  CHECK(theirs.getPort().getBytes() == 0);
  CHECK(theirs.getPort().getZero() == 32);
  auto flow = answer.flow();
  CHECK((flow.getRule() == "pg"));
  CHECK(flow.getLimit().getRate() == 1 << 20);
  CHECK(flow.getLimit().getZero() == 8);
  CHECK(flow.getPort().getRate() == 2 << 20);
  CHECK(says(lab.auditText(), R"("who":"vm:web1","vm":"db1","call":"service.postgres","rule":"pg",)"
                              R"("outcome":"channel.open","channel":"0000000000000008","to":"vm:db1")"));
}

struct Refused {
  const char* to;
  const char* service;
  const char* reason;
};

// T110
TEST_CASE("what a guest is refused it gets no word of, and the audit the true reason") {
  PairLab lab;
  lab.add("off1").reachable = false;
  lab.add("rolled").quarantined = true;
  lab.add("blocked");
  lab.add("hand");
  lab.decisions.setBlocked("hand", true);
  lab.policy(std::string(PAIR) + R"(
[[deny]]
id = "no-smtp"
from = "any"
to = "any"
call = "service.smtp"
[[allow]]
id = "wide"
from = "web1"
to = ["off1", "rolled", "blocked", "hand", "web1"]
call = "service.*"
[[allow]]
id = "ghost"
from = "web1"
to = "host"
call = "service.ghost"
[port.blocked]
blocked = true
)");
  const Refused cases[] = {{"nobody", "http", "unknown-vm"},    {"web1", "http", "itself"},
                           {"db1", "http", "no-rule"},          {"db1", "smtp", "deny-rule"},
                           {"blocked", "http", "blocked-port"}, {"hand", "http", "blocked-port"},
                           {"rolled", "http", "quarantined"},   {"off1", "http", "not-connected"},
                           {"host", "http", "no-rule"},         {"host", "ghost", "not-exported"}};
  uint64_t id = 100;
  for (auto& one : cases) {
    auto later = lab.port.getTimer().now() + 1 * kj::HOURS;
    lab.channels->tick(later);  // each is the first of its kind
    lab.channels->tick(later + 1 * kj::HOURS);
    auto answer = lab.ask(lab.web, ++id, one.to, one.service);
    CAPTURE(one.to);
    CAPTURE(one.service);
    CHECK_FALSE(answer.isAllowed());
    CHECK_FALSE(answer.results().hasSocket());
    auto to = kj::str(one.to) == "host" ? kj::str("host") : kj::str("vm:", one.to);
    CHECK(says(lab.auditText(), kj::str("\"to\":\"", to, "\",\"reason\":\"", one.reason, "\"")));
  }
  CHECK((lab.db.served == nullptr));
  CHECK(lab.channels->living().size() == 0);
  auto port = lab.web.counters.forBoard();
  CHECK(port.denied == 8);   // by policy, and what is no VM
  CHECK(port.refused == 2);  // that could not be brought about
  CHECK((port.lastDenied == "no-rule"));
  auto theirs = lab.db.counters.forBoard();
  CHECK(theirs.denied == 2);
  CHECK((theirs.lastDenied == "no-smtp"));
  CHECK(lab.eventsOf("denied") == 8);
  CHECK(lab.web.timesShown > 0);
}

TEST_CASE("while vm-to-vm is disabled every question between VMs is denied, and says so") {
  PairLab lab;
  lab.policy("[[allow]]\nid = \"pg\"\nfrom = \"web1\"\nto = \"db1\"\ncall = \"service.postgres\"\n");
  CHECK_FALSE(lab.ask(lab.web, 1, "db1", "postgres").isAllowed());
  CHECK(says(lab.auditText(), R"("reason":"vm-to-vm-disabled")"));
  CHECK((lab.web.counters.forBoard().lastDenied == "vm-to-vm-disabled"));
}

TEST_CASE("what the other VM's session answers is a refusal, whatever it is") {
  PairLab lab;
  struct {
    Outcome outcome;
    const char* reason;
  } cases[] = {{Outcome::NOT_CONNECTED, "not-connected"}, {Outcome::DENIED, "denied-by-guest"},
               {Outcome::NOT_EXPORTED, "not-exported"},   {Outcome::NOT_REACHED, "not-reached"},
               {Outcome::REFUSED, "port-limit"},          {static_cast<Outcome>(99), "not-reached"}};
  uint64_t id = 0;
  for (auto& one : cases) {
    lab.db.outcome = one.outcome;
    CHECK_FALSE(lab.ask(lab.web, ++id, "db1", "postgres").isAllowed());
    auto later = lab.port.getTimer().now() + 1 * kj::HOURS;
    lab.channels->tick(later);
    lab.channels->tick(later + 1 * kj::HOURS);
    CHECK(lab.linesWith(kj::str("\"reason\":\"", one.reason)) >= 1);
  }
  CHECK(lab.web.counters.forBoard().denied == 0);
  CHECK(lab.web.counters.forBoard().refused == 6);
}

// T110
TEST_CASE("how a session process failed a question is written down, and what it says of it told, printable") {
  using Type = kj::Exception::Type;
  struct {
    Type type;
    const char* reason;
    bool isTold;
  } cases[] = {{Type::DISCONNECTED, "session-ended", false},
               {Type::OVERLOADED, "too-many", true},
               {Type::FAILED, "session-failed", true},
               {Type::UNIMPLEMENTED, "session-failed", true}};
  for (auto& one : cases) {
    for (bool isOwn : {true, false}) {
      PairLab lab;
      auto& waits = isOwn ? lab.web.beforeEntering : lab.db.before;
      waits = kj::Promise<void>(kj::Exception(one.type, __FILE__, __LINE__, kj::str("its \033 words")));
      CHECK_FALSE(lab.ask(lab.web, 1, "db1", "postgres").isAllowed());
      CHECK(says(lab.auditText(), kj::str("\"reason\":\"", one.reason, '"')));
      auto told = kj::str("failed: ", one.reason, one.isTold ? " (its ? words)" : "");
      lab.records.eventLog().forEachAfter(0, [&](const Event& event) { CHECK(event.text.endsWith(told)); });
      CHECK(lab.eventsOf("channel-failed") == 1);
    }
  }
}

TEST_CASE("a session process that answered while posternd stood still is not late") {
  PairLab lab;
  auto gate = kj::newPromiseAndFulfiller<void>();
  lab.web.beforeEntering = kj::mv(gate.promise);
  auto asked = lab.asking(lab.web, 1, "host", "cache");
  CHECK_FALSE(asked.poll(lab.io.waitScope));
  usleep(unsigned((ENTRANCE_DEADLINE + 200 * kj::MILLISECONDS) / kj::MICROSECONDS));
  REQUIRE_FALSE(asked.poll(lab.io.waitScope));  // which hears of the time before it hears of the answer
  gate.fulfiller->fulfill();
  CHECK(asked.wait(lab.io.waitScope).isAllowed());
}

// T110
TEST_CASE("a question for which posternd has no descriptor is refused, counted and written down, like any other") {
  PairLab lab;
  {
    DescriptorLimit none(lowestFreeDescriptor());
    CHECK_FALSE(lab.ask(lab.web, 1, "db1", "postgres").isAllowed());
  }
  CHECK(says(lab.auditText(), R"("outcome":"failed","to":"vm:db1","reason":"too-many")"));
  CHECK(lab.web.counters.forBoard().refused == 1);
  CHECK(lab.ask(lab.web, 2, "db1", "postgres").isAllowed());
}

// T113
TEST_CASE("a VM that is removed gets nothing, while its session is not yet gone") {
  PairLab lab;
  auto gate = kj::newPromiseAndFulfiller<void>();
  lab.db.before = kj::mv(gate.promise);
  auto asked = lab.asking(lab.web, 1, "db1", "postgres");
  CHECK_FALSE(asked.poll(lab.io.waitScope));
  auto removed = kj::mv(KJ_REQUIRE_NONNULL(lab.vms.find("web1")));
  lab.vms.erase("web1");
  gate.fulfiller->fulfill();
  CHECK_FALSE(asked.wait(lab.io.waitScope).isAllowed());
  CHECK_FALSE(lab.ask(*removed, 2, "host", "cache").isAllowed());
  CHECK(lab.linesWith(R"("reason":"removed")") == 2);
  // Nor by another VM of its name.
  lab.add("web1");
  CHECK_FALSE(lab.ask(*removed, 3, "host", "cache").isAllowed());
}

// T113
TEST_CASE("a policy that changes while a target is being reached counts: nothing is handed out") {
  PairLab lab;
  auto gate = kj::newPromiseAndFulfiller<void>();
  lab.db.before = kj::mv(gate.promise);
  auto asked = lab.asking(lab.web, 1, "db1", "postgres");
  CHECK_FALSE(asked.poll(lab.io.waitScope));
  REQUIRE((lab.db.hop != nullptr));
  lab.policy("");
  lab.channels->recheck();
  gate.fulfiller->fulfill();
  CHECK_FALSE(asked.wait(lab.io.waitScope).isAllowed());
  CHECK(lab.soon([&]() { return isOver(lab.db.hop); }));
  CHECK(lab.channels->living().size() == 0);
}

// T92
TEST_CASE("a descriptor that comes back before a channel is open holds posternd up in nothing, whoever sends it") {
  PairLab lab;
  postern::test::LingeringTcp lingering;
  auto gate = kj::newPromiseAndFulfiller<void>();
  kj::Maybe<kj::Promise<LabAnswer>> asked;
  kj::AutoCloseFd service;
  SUBCASE("another VM's session") {
    lab.db.before = kj::mv(gate.promise);
    CHECK_FALSE(asked.emplace(lab.asking(lab.web, 1, "db1", "postgres")).poll(lab.io.waitScope));
    CHECK(postern::test::sendAlong(lab.db.hop, "x"_kj, lingering));
  }
  SUBCASE("a service of the host") {
    CHECK_FALSE(asked.emplace(lab.asking(lab.web, 1, "host", "cache")).poll(lab.io.waitScope));
    pollfd waiting{lab.cache, POLLIN, 0};
    REQUIRE(poll(&waiting, 1, 5000) == 1);
    service = lab.acceptCache();
    (void)postern::test::sendAlong(service, "x"_kj, lingering);
  }
  lab.policy("");
  gate.fulfiller->fulfill();
  auto began = lab.port.getTimer().now();
  CHECK_FALSE(KJ_ASSERT_NONNULL(asked).wait(lab.io.waitScope).isAllowed());
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 2 * kj::SECONDS);
}

TEST_CASE("a question that is given up leaves nothing: the way to the other VM ends") {
  PairLab lab;
  lab.db.before = kj::Promise<void>(kj::NEVER_DONE);
  {
    auto asked = lab.asking(lab.web, 1, "db1", "postgres");
    CHECK_FALSE(asked.poll(lab.io.waitScope));
    CHECK_FALSE(isOver(lab.db.hop));
  }
  CHECK(lab.soon([&]() { return isOver(lab.db.hop); }));
}

TEST_CASE("a VM has so many questions under way, and another one as many") {
  PairLab lab;
  lab.policy(std::string(PAIR) + "[[allow]]\nid = \"x\"\nfrom = \"any\"\nto = \"db1\"\ncall = \"service.x\"\n");
  auto& other = lab.add("web2");
  kj::Vector<kj::Promise<LabAnswer>> asked;
  for (unsigned i = 0; i < MAX_QUESTIONS; ++i) {
    lab.db.before = kj::Promise<void>(kj::NEVER_DONE);
    asked.add(lab.asking(lab.web, i + 1, "db1", "x"));
    CHECK_FALSE(asked.back().poll(lab.io.waitScope));
  }
  CHECK_FALSE(lab.ask(lab.web, 1000, "db1", "x").isAllowed());
  CHECK(says(lab.auditText(), R"("reason":"too-many")"));
  CHECK(lab.ask(other, 1001, "db1", "x").isAllowed());
  asked.clear();
  CHECK(lab.ask(lab.web, 1002, "db1", "x").isAllowed());
}

TEST_CASE("an id that lives is not given again") {
  PairLab lab;
  auto first = lab.ask(lab.web, 1, "host", "cache");
  REQUIRE(first.isAllowed());
  CHECK_FALSE(lab.ask(lab.db, 1, "host", "cache").isAllowed());
  CHECK(lab.channels->living().size() == 1);
  CHECK_FALSE(isOver(first.socket));
}

// T111
TEST_CASE("a flood of questions that are denied is a line, and then a count") {
  PairLab lab;
  for (uint64_t i = 0; i < 10'000; ++i) CHECK_FALSE(lab.ask(lab.web, i + 1, "db1", "http").isAllowed());
  CHECK(lab.linesWith("service.http") == 1);
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(lab.linesWith("service.http") == 2);
  CHECK(says(lab.auditText(), R"x("outcome":"denied (9999 more)","to":"vm:db1","reason":"no-rule")x"));
  CHECK(lab.eventsOf("denied") == 2);
  CHECK(lab.web.counters.forBoard().denied == 10'000);
}

// T111
TEST_CASE("a flood by ever other names is a few lines, and then a count") {
  PairLab lab;
  for (uint64_t i = 0; i < 10'000; ++i) lab.ask(lab.web, i + 1, kj::str("vm", i), kj::str("s", i));
  CHECK(lab.linesWith("unknown-vm") == GuestDenials::MAX_KINDS);
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(lab.linesWith("\"who\":\"vm:web1\"") == GuestDenials::MAX_KINDS + 1);
  CHECK(says(lab.auditText(), R"x("call":"service.*","outcome":"denied (9996 more)","reason":"several")x"));
}

// T111
TEST_CASE("a flood of channels that a limit refuses is a line, and then a count, like any other") {
  PairLab lab;
  lab.web.letsIn = false;
  for (uint64_t id = 1; id <= 1000; ++id) {
    CHECK_FALSE(lab.ask(lab.web, id, "host", "cache").isAllowed());
  }
  CHECK(lab.linesWith("service.cache") == 1);
  CHECK(says(lab.auditText(), R"("rule":"cache","outcome":"failed","to":"host","reason":"limit")"));
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(lab.linesWith("service.cache") == 2);
}

// T111
TEST_CASE("short channels without end fill no log: above a rate they are refused, with a line and a count") {
  PairLab lab;
  lab.policy(std::string(PAIR) + "[[allow]]\nid = \"x\"\nfrom = \"any\"\nto = \"db1\"\ncall = \"service.x\"\n");
  auto openAndClose = [&](uint64_t id, kj::StringPtr to, kj::StringPtr service) {
    if (!lab.ask(lab.web, id, to, service).isAllowed()) return false;
    lab.close(lab.web, id, "finished");
    lab.close(lab.db, id, "finished");
    return true;
  };
  unsigned opened = 0;
  for (uint64_t id = 1; id <= OPENS_BURST + 1000; ++id) opened += openAndClose(id, "db1", "x");
  CHECK(opened >= OPENS_BURST);
  CHECK(opened < OPENS_BURST + 500);  // some came in meanwhile
  CHECK(lab.linesWith("channel.open") == opened);
  CHECK(lab.linesWith("channel.close") == opened);
  CHECK(lab.linesWith("too-fast") == 1);
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(says(lab.auditText(), kj::str("failed (", OPENS_BURST + 1000 - opened - 1, " more)")));
  // A rule's own rate counts in its place.
  CHECK(openAndClose(100'000, "host", "cache"));
}

TEST_CASE("a channel is written down as open in the turn in which it is handed out, and once") {
  PairLab lab;
  lab.ask(lab.web, 1, "host", "cache");
  lab.ask(lab.web, 2, "host", "cache");
  CHECK(lab.linesWith("channel.open") == 2);
  lab.close(lab.web, 1, "finished");
  lab.ask(lab.web, 1, "host", "cache");  // its id again
  CHECK(lab.linesWith("channel.open") == 3);
  CHECK(lab.linesWith("channel.close") == 1);
}

// T104
TEST_CASE("nothing is reached for what a limit keeps out, and the place is asked for before the target") {
  PairLab lab;
  lab.web.letsIn = false;
  CHECK_FALSE(lab.ask(lab.web, 1, "db1", "postgres").isAllowed());
  CHECK((lab.db.served == nullptr));
  CHECK_FALSE(lab.ask(lab.web, 2, "host", "cache").isAllowed());
  fcntl(lab.cache, F_SETFL, O_NONBLOCK);
  CHECK((lab.acceptCache() == nullptr));
  CHECK(lab.web.entrances == 2);
  CHECK(says(lab.auditText(), R"("rule":"pg","outcome":"failed","to":"vm:db1","reason":"limit")"));
  CHECK(lab.web.counters.forBoard().refused == 0);  // its session counts that
  CHECK_FALSE(lab.ask(lab.web, 3, "db1", "http").isAllowed());
  CHECK(lab.web.entrances == 2);  // nor is a place taken for what policy denies
}

// T113
TEST_CASE("a channel is not handed out under the terms of an earlier policy") {
  PairLab lab;
  std::string other = PAIR;
  other.replace(other.find("1 MiB/s"), 7, "9 MiB/s");
  auto gate = kj::newPromiseAndFulfiller<void>();
  lab.db.before = kj::mv(gate.promise);
  auto asked = lab.asking(lab.web, 1, "db1", "postgres");
  CHECK_FALSE(asked.poll(lab.io.waitScope));
  lab.policy(other);
  gate.fulfiller->fulfill();
  CHECK_FALSE(asked.wait(lab.io.waitScope).isAllowed());
  CHECK(says(lab.auditText(), R"("reason":"policy-changed")"));
  CHECK(lab.ask(lab.web, 2, "db1", "postgres").isAllowed());
}

// Cutting ----------------------------------------------------------------------------------------------------------

// T114
TEST_CASE("a reload cuts exactly what it forbids, for both ends, and says why") {
  PairLab lab;
  auto stays = lab.ask(lab.web, 1, "host", "cache");
  auto stayingService = lab.acceptCache();
  auto goes = lab.ask(lab.web, 2, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  REQUIRE(goes.isAllowed());
  auto began = lab.port.getTimer().now();
  std::string less = PAIR;
  less.replace(less.find("\"enabled\""), 9, "\"disabled\"");
  lab.policy(less);
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.channels->recheck() == 0);  // it is being cut
  CHECK((lab.web.cuts.size() == 1 && lab.web.cuts[0] == 2));
  CHECK((lab.db.cuts.size() == 1 && lab.db.cuts[0] == 2));
  CHECK(lab.soon([&]() { return isOver(hop) && isOver(goes.socket); }));
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 2 * kj::SECONDS);
  lab.close(lab.db, 2, "cut", 5, 6);
  lab.close(lab.web, 2, "cut", 5, 6);
  CHECK(lab.linesWith("channel.close") == 1);
  CHECK(says(lab.auditText(), R"("channel":"0000000000000002","to":"vm:db1","why":"policy","bytes-there":5)"));
  CHECK(isConnected(stays.socket, stayingService));
  CHECK(lab.channels->living().size() == 1);
}

// T112, T114
TEST_CASE("a port that is blocked by hand cuts what passes it, on either end, and nothing else") {
  PairLab lab;
  auto& other = lab.add("web2");
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  auto own = lab.ask(lab.db, 2, "host", "cache");
  auto stays = lab.ask(other, 3, "host", "cache");
  REQUIRE(stays.isAllowed());
  lab.decisions.setBlocked("db1", true);
  CHECK(lab.channels->recheck() == 2);
  CHECK(lab.soon([&]() { return isOver(hop) && isOver(own.socket) && isOver(asked.socket); }));
  CHECK_FALSE(isOver(stays.socket));
  CHECK_FALSE(lab.ask(lab.db, 4, "host", "cache").isAllowed());
  CHECK_FALSE(lab.ask(lab.web, 5, "db1", "postgres").isAllowed());
  lab.close(lab.db, 2, "cut");
  CHECK(says(lab.auditText(), R"("why":"blocked")"));
  lab.decisions.setBlocked("db1", false);
  CHECK(lab.ask(lab.db, 6, "host", "cache").isAllowed());
}

// T114
TEST_CASE("a session that answers nothing, and says nothing, does not keep a channel alive, nor its entry") {
  PairLab lab;
  lab.web.answersCuts = false;
  lab.db.answersCuts = false;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  REQUIRE(asked.isAllowed());
  lab.channels->cutAllOf("db1", "removed");
  CHECK(lab.soon([&]() { return isOver(asked.socket) && isOver(lab.db.hop); }));
  CHECK(lab.soon([&]() { return lab.channels->living().size() == 0; }));
  CHECK(says(lab.auditText(), R"("outcome":"channel.close",)"));
  CHECK(says(lab.auditText(), R"("why":"removed")"));
  CHECK(lab.web.restarts.size() == 0);  // what had been handed out is dead
}

TEST_CASE("a channel that is closed by hand says so, and by whom") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 0xabc, "host", "cache");
  lab.channels->cutByHand("user:alice", 0xabc);
  lab.close(lab.web, 0xabc, "cut");
  CHECK(says(lab.auditText(),
             R"("who":"user:alice","call":"channel.cut","outcome":"done","channel":"0000000000000abc")"));
  CHECK(says(lab.auditText(), R"("why":"closed by hand")"));
  lab.channels->cutByHand("user:alice", 0xdef);  // there is none
  CHECK(lab.linesWith("channel.cut") == 1);
}

TEST_CASE("a TCP service of a channel that is cut sees a reset, and not an end") {
  ChannelDeskLab lab;
  auto& web = lab.add("web1");
  kj::AutoCloseFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_in address {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<struct sockaddr*>(&address);
  KJ_SYSCALL(bind(listener, generic, size));
  KJ_SYSCALL(::listen(listener, 1));
  KJ_SYSCALL(getsockname(listener, generic, &size));
  TcpAddress tcp{};
  tcp.address[0] = 127;
  tcp.address[3] = 1;
  tcp.port = ntohs(address.sin_port);
  kj::Vector<HostService> services;
  services.add(HostService{ServiceTarget{kj::str("cache"), LocalAddress(tcp), nullptr, false}, nullptr});
  lab.channels->hostServices().set(kj::mv(services));
  lab.policy(PAIR);
  auto asked = lab.ask(web, 1, "host", "cache");
  REQUIRE(asked.isAllowed());
  kj::AutoCloseFd service(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  lab.channels->cutAllOf("web1", "removed");
  char byte;
  CHECK(lab.soon([&]() { return recv(service, &byte, 1, 0) < 0 && errno == ECONNRESET; }));
  CHECK(isOver(asked.socket));
}

TEST_CASE("a service of the host that is another one after a reload is cut; one that is the same is not") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "host", "cache");
  lab.serveUnix("cache", "cache.sock");
  CHECK(lab.channels->recheck() == 0);
  lab.serveUnix("cache", "other.sock");
  CHECK(lab.channels->recheck() == 1);
  lab.close(lab.web, 1, "cut");
  CHECK(says(lab.auditText(), R"("why":"service-changed")"));
}

// T114
TEST_CASE("a channel whose rule has another mirror than it was opened with is cut; one whose rule has moved is not") {
  PairLab lab;
  auto rule = [](kj::StringPtr id, kj::StringPtr mirror) {
    return std::string(
        kj::str("[[allow]]\nid = \"", id, "\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n", mirror)
            .cStr());
  };
  constexpr auto META = "mirror = { to = \"unix:/run/ids\", copy = \"meta\" }\n"_kj;
  constexpr auto FULL = "mirror = { to = \"unix:/run/ids\", copy = \"full\" }\n"_kj;
  uint64_t id = 0;
  for (auto& change : {std::pair(""_kj, META), std::pair(META, FULL), std::pair(META, ""_kj)}) {
    lab.policy(rule("a", change.first));
    REQUIRE(lab.ask(lab.web, ++id, "host", "cache").isAllowed());
    lab.policy("vm-to-vm = \"enabled\"\n" + rule("a", change.first));
    CHECK(lab.channels->recheck() == 0);
    lab.policy(rule("b", change.first));  // it lives on by another rule
    CHECK(lab.channels->recheck() == 0);
    lab.policy(rule("a", change.second));
    CHECK(lab.channels->recheck() == 1);
    lab.close(lab.web, id, "cut");
  }
  CHECK(lab.linesWith(R"("why":"policy")") == 3);
  // Also of an earlier posternd: its session knows.
  lab.policy(rule("a", META));
  auto mirrored = claimed(10, "", "cache");
  mirrored.mirror = kj::str("unix:/run/ids meta");
  adopt(lab, lab.web, kj::mv(mirrored));
  adopt(lab, lab.web, claimed(11, "", "cache"));
  CHECK((lab.web.cuts.size() == 4 && lab.web.cuts.back() == 11));
}

TEST_CASE("a rule that expires cuts what it allowed") {
  PairLab lab;
  lab.policy("[[allow]]\nid = \"cache\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n");
  auto asked = lab.ask(lab.web, 1, "host", "cache");
  REQUIRE(asked.isAllowed());
  lab.policy(
      "[[allow]]\nid = \"cache\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n"
      "expires = 2001-01-01T00:00:00Z\n");
  CHECK(lab.channels->recheck() == 1);
}

TEST_CASE("tags that change, a quarantine and a VM that goes cut what they were good for") {
  PairLab lab;
  auto& tagged = lab.add("t1");
  tagged.vm.tags.add(kj::str("front"));
  lab.policy(std::string(PAIR) +
             "[[allow]]\nid = \"tag\"\nfrom = \"tag:front\"\nto = \"db1\"\ncall = \"service.postgres\"\n");
  auto byTag = lab.ask(tagged, 1, "db1", "postgres");
  REQUIRE(byTag.isAllowed());
  CHECK(lab.channels->recheck() == 0);
  tagged.vm.tags.clear();
  CHECK(lab.channels->recheck() == 1);
  auto asked = lab.ask(lab.web, 2, "db1", "postgres");
  REQUIRE(asked.isAllowed());
  lab.db.quarantined = true;
  CHECK(lab.channels->recheck() == 1);
  lab.db.quarantined = false;
  auto again = lab.ask(lab.web, 3, "db1", "postgres");
  REQUIRE(again.isAllowed());
  lab.vms.erase("db1");
  CHECK(lab.channels->recheck() == 1);
  lab.close(lab.web, 3, "cut");
  CHECK(says(lab.auditText(), R"("why":"removed")"));
}

// Sessions ---------------------------------------------------------------------------------------------------------

TEST_CASE("a session closes channels of its own VM, and no others") {
  PairLab lab;
  auto& stranger = lab.add("web2");
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  lab.close(stranger, 1, "finished");
  CHECK(lab.channels->living().size() == 1);
  CHECK_FALSE(isOver(asked.socket));
  lab.close(lab.db, 1, "reset");
  CHECK(lab.channels->living().size() == 0);
  // For the other end, too: nothing passes a channel that is not listed.
  CHECK(isOver(asked.socket));
}

// T114
TEST_CASE("a channel between VMs that has finished at one lives, and can be cut, until the other says so too") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  lab.close(lab.web, 1, "finished", 3, 4);
  CHECK(lab.channels->living().size() == 1);
  CHECK(isConnected(asked.socket, hop));
  lab.close(lab.db, 1, "finished", 1, 2);
  CHECK(lab.channels->living().size() == 0);
  CHECK(isOver(hop));
  CHECK(says(lab.auditText(), R"("why":"finished","bytes-there":3,"bytes-back":4)"));
  asked = lab.ask(lab.web, 2, "db1", "postgres");
  hop = kj::mv(lab.db.hop);
  lab.close(lab.db, 2, "finished");
  lab.policy("");
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.soon([&]() { return isOver(hop) && lab.channels->living().size() == 0; }));
}

TEST_CASE("a session process that goes when its half of a channel has finished costs the other VM nothing of it") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  lab.close(lab.web, 1, "finished");
  lab.channels->sessionGone(lab.web);
  CHECK(lab.db.cuts.size() == 0);
  CHECK(isConnected(asked.socket, lab.db.hop));
  lab.close(lab.db, 1, "finished");
  CHECK(lab.channels->living().size() == 0);
  CHECK(says(lab.auditText(), R"("why":"finished")"));
}

TEST_CASE("a session process that goes ends its channels; what another VM's session tells of them is written down") {
  PairLab lab;
  auto own = lab.ask(lab.web, 1, "host", "cache");
  auto between = lab.ask(lab.web, 2, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  lab.channels->sessionGone(lab.web);
  CHECK(isOver(own.socket));
  CHECK(lab.channels->living().size() == 1);
  CHECK(lab.soon([&]() { return isOver(hop); }));
  lab.close(lab.db, 2, "reset", 77, 0);
  CHECK(lab.channels->living().size() == 0);
  CHECK(says(lab.auditText(), R"("why":"session-ended","bytes-there":77)"));
  CHECK(lab.linesWith("channel.close") == 2);
}

// Programs of the host ---------------------------------------------------------------------------------------------

struct CallerLab : PairLab {
  kj::AutoCloseFd socket;
  uint64_t grant = 0;

  CallerLab() {
    policy(
        "[[allow]]\nid = \"ssh\"\nfrom = \"user:alice\"\nto = \"web1\"\ncall = [\"service.ssh\", \"service.web\"]\n"
        "mirror = { to = \"unix:/run/ids\", copy = \"full\" }\n");
    grant = add(kj::str("alice"));
  }
  using ChannelDeskLab::add;
  uint64_t add(kj::String user) {
    auto caller = kj::atomicRefcounted<LocalCaller>();
    caller->uid = 1000;
    caller->user = kj::mv(user);
    GrantEntry entry{grants.nextId(), kj::str("web1"), {{}, kj::str("ssh"), nullptr, nullptr, {}}, kj::mv(caller)};
    auto id = entry.id;
    entry.granted.services.add(GrantedService{kj::str("ssh"), kj::str("ssh"), kj::str("unix:/run/ids full")});
    auto pair = newSocketPair(SOCK_STREAM);
    socket = kj::mv(pair.first);
    grants.add(kj::mv(entry), pair.second);
    return id;
  }
};

TEST_CASE("a channel of a program of the host is listed and written down under its caller, and cut with his rights") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  CHECK(says(lab.auditText(), R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh",)"
                              R"("outcome":"channel.open","channel":"0000000000000005","to":"vm:web1",)"
                              R"("mirror":"unix:/run/ids full")"));
  CHECK(lab.channels->recheck() == 0);
  lab.policy("");
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.web.cuts.size() == 1);
  lab.close(lab.web, 5, "cut");
  CHECK(says(lab.auditText(), R"("why":"policy")"));
}

TEST_CASE("a session cannot list what was not granted: such a channel is cut") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "web");      // of another service
  lab.channels->opened(lab.web, 6, lab.grant + 1, "ssh");  // of no grant
  lab.channels->opened(lab.db, 7, lab.grant, "ssh");       // of another VM's grant
  CHECK(lab.channels->living().size() == 0);
  CHECK(lab.web.cuts.size() == 2);
  CHECK(lab.linesWith("channel.open") == 0);
  // One that was granted, and is no longer allowed by the time it opens.
  lab.policy("");
  lab.channels->opened(lab.web, 8, lab.grant, "ssh");
  CHECK(lab.web.cuts.size() == 3);
}

TEST_CASE("a program's channel for which posternd has no room is cut, and counted and written down as refused") {
  CallerLab lab;
  {
    DescriptorLimit few(64);
    lab.channels = lab.makeChannels();
  }
  uint64_t id = 0;
  while (lab.channels->living().hasRoomFor("web1")) lab.channels->opened(lab.web, ++id, lab.grant, "ssh");
  CHECK(id == 16);
  CHECK(lab.web.cuts.size() == 0);
  lab.channels->opened(lab.web, ++id, lab.grant, "ssh");
  CHECK((lab.web.cuts.size() == 1 && lab.web.cuts[0] == id));
  CHECK(lab.web.counters.forBoard().refused == 1);
  CHECK(
      says(lab.auditText(), R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh","outcome":"refused")"));
}

TEST_CASE("a session that does not end what it was asked to end is ended itself") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  lab.channels->cutByHand("user:root", 5);
  CHECK(lab.soon([&]() { return lab.web.restarts.size() == 1; }));
  CHECK(says(lab.web.restarts[0], "0000000000000005"));
  CHECK(lab.channels->living().size() == 0);
  CHECK(lab.db.restarts.size() == 0);
}

TEST_CASE("a session that ended a channel while posternd stood still has done what it was asked") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  lab.channels->cutByHand("user:root", 5);
  lab.io.waitScope.poll();
  usleep(unsigned((CLOSING_PATIENCE + 200 * kj::MILLISECONDS) / kj::MICROSECONDS));
  lab.io.waitScope.poll();  // which hears of the time before it hears of the end
  lab.close(lab.web, 5, "cut", 3, 4);
  lab.io.waitScope.poll();
  CHECK(lab.web.restarts.size() == 0);
  CHECK(says(lab.auditText(), R"("why":"closed by hand","bytes-there":3)"));
}

TEST_CASE("what a session refused a program of the host is written down, damped, with the grant's rule") {
  CallerLab lab;
  for (int i = 0; i < 1000; ++i) {
    lab.channels->refused(lab.web, ChannelRefusal{lab.grant, kj::str("ssh"), kj::str("not reached"), 1});
  }
  CHECK(lab.linesWith("not reached") == 60);
  CHECK(says(lab.auditText(),
             R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh","outcome":"not reached")"));
  lab.channels->refused(lab.db, ChannelRefusal{lab.grant, kj::str("ssh"), kj::str("of another VM"), 1});
  CHECK(lab.linesWith("of another VM") == 0);
  // Questions of a guest that its session did not let through.
  lab.channels->refused(lab.web, ChannelRefusal{0, kj::String(), kj::String(), 900});
  CHECK(says(lab.auditText(), R"("who":"vm:web1","call":"service.*","outcome":"failed","reason":"too-many")"));
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(says(lab.auditText(), R"x("outcome":"failed (899 more)")x"));
}

// Adoption ---------------------------------------------------------------------------------------------------------

// T113
TEST_CASE("a new posternd adopts what is still allowed, and cuts the rest") {
  PairLab lab;
  adopt(lab, lab.web, claimed(1, "db1", "postgres"));
  adopt(lab, lab.db, claimedFrom(1, "web1", "postgres"));
  adopt(lab, lab.web, claimed(2, "", "cache"));
  CHECK(lab.channels->living().size() == 2);
  CHECK(lab.web.cuts.size() == 0);
  CHECK(lab.db.cuts.size() == 0);
  auto& entry = KJ_REQUIRE_NONNULL(lab.channels->living().find(1));
  CHECK((entry.from() == "vm:web1"));
  CHECK((entry.target() == "vm:db1"));
  CHECK(lab.port.getTimer().now() - entry.opened >= 10 * kj::SECONDS);
  CHECK(lab.linesWith("channel.open") == 0);  // they were opened before
  // Not allowed, of a VM that is gone, of a service that is gone.
  adopt(lab, lab.web, claimed(3, "db1", "http"));
  adopt(lab, lab.web, claimed(4, "gone", "postgres"));
  adopt(lab, lab.db, claimedFrom(5, "gone", "postgres"));
  adopt(lab, lab.web, claimed(6, "", "old"));
  CHECK(lab.web.cuts.size() == 3);
  CHECK(lab.db.cuts.size() == 1);  // 5; it holds no 3
  // What was adopted is cut like any other: by its session, since there is no copy of it.
  lab.policy("");
  lab.channels->recheck();
  CHECK((lab.web.cuts.back() == 1 || lab.web.cuts.back() == 2));
  lab.close(lab.web, 1, "cut", 3, 4);
  CHECK(says(lab.auditText(), R"("channel":"0000000000000001","to":"vm:db1","why":"policy","bytes-there":3)"));
}

// T113
TEST_CASE("a session that claims channels of another VM, and does not end them, costs itself and nobody else") {
  PairLab lab;
  lab.db.answersCuts = false;
  adopt(lab, lab.db, claimedFrom(1, "web1", "http"));  // which the policy does not allow
  CHECK((lab.db.cuts.size() == 1 && lab.web.cuts.size() == 0));
  CHECK(lab.soon([&]() { return lab.db.restarts.size() == 1; }));
  CHECK(lab.web.restarts.size() == 0);
  CHECK(lab.channels->living().size() == 0);
}

// T113
TEST_CASE("a session that claims a channel which is being cut is told so") {
  PairLab lab;
  lab.db.answersCuts = false;
  adopt(lab, lab.db, claimedFrom(1, "web1", "http"));
  adopt(lab, lab.web, claimed(1, "db1", "http"));
  CHECK((lab.web.cuts.size() >= 1 && lab.web.cuts[0] == 1));
}

TEST_CASE("an adopted channel between VMs that has finished at one is left alone until the other says so too") {
  PairLab lab;
  adopt(lab, lab.web, claimed(1, "db1", "postgres"));
  adopt(lab, lab.db, claimedFrom(1, "web1", "postgres"));
  lab.close(lab.web, 1, "finished", 3, 4);
  lab.close(lab.web, 1, "finished", 3, 4);
  CHECK(lab.db.cuts.size() == 0);  // its guest still gets what is on the way
  CHECK(lab.channels->living().size() == 1);
  lab.close(lab.db, 1, "finished", 1, 2);
  CHECK(lab.channels->living().size() == 0);
  CHECK(lab.linesWith("channel.close") == 1);
  CHECK(says(lab.auditText(), R"("why":"finished","bytes-there":3,"bytes-back":4)"));
  // One that was reset has nothing on the way.
  adopt(lab, lab.web, claimed(2, "db1", "postgres"));
  adopt(lab, lab.db, claimedFrom(2, "web1", "postgres"));
  lab.close(lab.web, 2, "reset");
  CHECK(lab.channels->living().size() == 0);
  CHECK((lab.db.cuts.size() == 1 && lab.db.cuts[0] == 2));
  // One that is waited for is cut like any other.
  adopt(lab, lab.web, claimed(3, "db1", "postgres"));
  adopt(lab, lab.db, claimedFrom(3, "web1", "postgres"));
  lab.close(lab.web, 3, "finished", 5, 6);
  lab.policy("");
  CHECK(lab.channels->recheck() == 1);
  lab.close(lab.db, 3, "cut");
  CHECK(says(lab.auditText(), R"("why":"policy","bytes-there":5)"));
}

// T113
TEST_CASE("a session cannot claim another VM's channel, nor change what a channel is") {
  PairLab lab;
  auto& evil = lab.add("evil");
  auto real = lab.ask(lab.web, 1, "db1", "postgres");
  adopt(lab, evil, claimed(1, "db1", "postgres"));
  CHECK(evil.cuts.size() == 1);
  adopt(lab, lab.web, claimed(1, "db1", "other"));
  CHECK(lab.web.cuts.size() == 1);
  CHECK(lab.channels->living().size() == 1);
  CHECK_FALSE(isOver(real.socket));
}

// T113
TEST_CASE("what one session claims of another VM's counts for itself, is not shown, and goes if the other disagrees") {
  PairLab lab;
  adopt(lab, lab.db, claimedFrom(9, "web1", "postgres"));
  CHECK_FALSE(KJ_REQUIRE_NONNULL(lab.channels->living().find(9)).isConfirmed);
  adopt(lab, lab.web, claimed(9, "db1", "postgres"));
  CHECK((KJ_REQUIRE_NONNULL(lab.channels->living().find(9)).rule == "pg"));
  CHECK(KJ_REQUIRE_NONNULL(lab.channels->living().find(9)).isConfirmed);
  CHECK(lab.web.cuts.size() + lab.db.cuts.size() == 0);

  // A VM whose session holds none of them, or said so before.
  lab.web.attached = true;
  auto& other = lab.add("web2");
  lab.policy(std::string(PAIR) + "[[allow]]\nid = \"x\"\nfrom = \"any\"\nto = \"db1\"\ncall = \"service.x\"\n");
  adopt(lab, lab.db, claimedFrom(10, "web2", "x"));
  adopt(lab, lab.db, claimedFrom(11, "web1", "x"));
  CHECK((lab.db.cuts.size() == 1 && lab.db.cuts[0] == 11));
  adopt(lab, other, claimed(12, "", "cache"));
  CHECK((lab.db.cuts.size() == 2 && lab.db.cuts[1] == 10));
  CHECK(lab.web.cuts.size() + other.cuts.size() == 0);  // what they do not hold they are not asked to end
  lab.close(other, 10, "cut");                          // nor have they a say in it
  lab.close(lab.db, 10, "cut", 7, 8);
  CHECK(says(lab.auditText(), R"("who":"vm:web2","vm":"db1","call":"service.x","outcome":"channel.close",)"));
  CHECK(says(lab.auditText(), R"("why":"session-ended","claimed-by":"vm:db1","bytes-there":7)"));
}

// T113
TEST_CASE("a session that claims as many channels of another VM as there may be takes no room from that VM") {
  PairLab lab;
  lab.policy(std::string(PAIR) + "[[allow]]\nid = \"x\"\nfrom = \"any\"\nto = \"db1\"\ncall = \"service.x\"\n");
  ChannelClaims claims;
  for (uint64_t id = 1; id <= MAX_CHANNELS_PER_VM; ++id) claims.good.add(claimedFrom(id, "web1", "x"));
  lab.channels->adopt(lab.db, kj::mv(claims));
  CHECK(lab.channels->living().size() == MAX_CHANNELS_PER_VM);
  CHECK(lab.channels->living().hasRoomFor("web1"));
  CHECK_FALSE(lab.channels->living().hasRoomFor("db1"));
  adopt(lab, lab.web, claimed(1, "db1", "x"));
  CHECK(lab.channels->living().hasRoomFor("db1"));
  CHECK(lab.db.cuts.size() == MAX_CHANNELS_PER_VM - 1);
}

TEST_CASE(
    "a program's channel of an earlier posternd is adopted by who its caller was, and never as an administrator") {
  PairLab lab;
  lab.policy("[[allow]]\nid = \"ssh\"\nfrom = \"group:ops\"\nto = \"web1\"\ncall = \"service.ssh\"\n");
  auto claimOf = [](uint64_t id, kj::StringPtr group) {
    auto claim = claimed(id, "", "ssh");
    claim.way = ChannelClaim::Way::FROM_HOST;
    auto caller = kj::atomicRefcounted<LocalCaller>();
    caller->user = kj::str("alice");
    caller->groups = kj::arr(kj::str(group));
    claim.caller = kj::Own<const LocalCaller>(kj::mv(caller));
    return claim;
  };
  adopt(lab, lab.web, claimOf(1, "ops"));
  adopt(lab, lab.web, claimOf(2, "users"));
  CHECK((lab.web.cuts.size() == 1 && lab.web.cuts[0] == 2));
  CHECK((KJ_REQUIRE_NONNULL(lab.channels->living().find(1)).from() == "user:alice"));
}

}  // namespace
}  // namespace postern::host
