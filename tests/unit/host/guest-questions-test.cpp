// GuestQuestions: what guests ask for, what they get, and what is written down of it.

#include "host/daemon/guest-questions.h"

#include <fcntl.h>
#include <poll.h>

#include "tests/support/lingering-tcp.h"
#include "tests/unit/host/channel-desk-fixture.h"

namespace postern::host {
namespace {

using test::DescriptorLimit;
using test::isConnected;
using test::isOver;
using test::LabAnswer;
using test::Outcome;
using test::PAIR;
using test::PairLab;
using test::says;

rlim_t lowestFreeDescriptor() {
  return rlim_t(kj::AutoCloseFd(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)).get());
}

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

}  // namespace
}  // namespace postern::host
