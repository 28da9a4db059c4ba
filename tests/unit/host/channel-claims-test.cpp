// What sessions claim of channels, and what becomes of their numbers.

#include "host/daemon/channel-claims.h"

#include <capnp/message.h>
#include <doctest/doctest.h>

#include "host/daemon/guest-denials.h"
#include "host/daemon/port-counters.h"

namespace postern::host {
namespace {

using Observer = schema::SessionObserver;

// Claims -----------------------------------------------------------------------------------------------------------

kj::Maybe<ChannelQuestion> question(kj::StringPtr to, kj::StringPtr service) {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Observer::ConnectParams>();
  params.setId(5);
  params.setTo(to);
  params.setService(service);
  return parseQuestion(params.asReader());
}

// T110
TEST_CASE("a question's names are names, or there is no question") {
  auto good = question("db-1.prod", "http");
  CHECK((KJ_REQUIRE_NONNULL(good).to == "db-1.prod"));
  CHECK((KJ_REQUIRE_NONNULL(good).service == "http"));
  CHECK(KJ_REQUIRE_NONNULL(good).id == 5);
  CHECK((KJ_REQUIRE_NONNULL(question("host", "http")).to == ""));
  auto nul = kj::heapString("db1\0x", 5);
  auto longest = kj::str(kj::repeat('x', 65));
  for (kj::StringPtr bad : {""_kj, "any"_kj, "../etc"_kj, "db 1"_kj, "-x"_kj, "d\n"_kj, nul.asPtr(), longest.asPtr()}) {
    CHECK((question(bad, "http") == nullptr));
  }
  for (kj::StringPtr bad : {""_kj, "*"_kj, "a.b"_kj, "http\n"_kj, nul.asPtr(), longest.asPtr()}) {
    CHECK((question("db1", bad) == nullptr));
  }
}

TEST_CASE("a channel's end has a word of ours, and numbers that the audit can hold") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Observer::ChannelClosedParams>();
  params.setMicroseconds(~uint64_t(0));
  params.initTraffic().setBytesThere(~uint64_t(0));
  for (auto why : {"finished", "reset", "cut", "link-ended"}) {
    params.setWhy(why);
    CHECK((parseClosing(params.asReader()).why == why));
  }
  for (auto why : {"", "closed by hand", "refused", "x\"\n"}) {
    params.setWhy(why);
    CHECK((parseClosing(params.asReader()).why == "ended"));
  }
  auto closing = parseClosing(params.asReader());
  CHECK(closing.traffic.bytesThere == uint64_t(1) << 62);
  CHECK(closing.took < 100'000 * kj::DAYS);
}

TEST_CASE("counters come bounded, of so many rules, each once and with a rule's name") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Observer::TrafficParams>();
  params.setActive(3);
  params.setOpened(~uint64_t(0));
  params.initOutOf().setMessagesBack(4);
  auto rules = params.initRules(1000);
  for (unsigned i = 0; i < rules.size(); ++i) {
    rules[i].setRule(i == 0 ? kj::str("bad name\n") : i < 3 ? kj::str("same") : kj::str("rule", i));
    rules[i].setOpened(i);
  }
  auto claim = parsePortClaim(params.asReader());
  CHECK(claim.counters.opened == uint64_t(1) << 62);
  CHECK(claim.counters.active == 3);
  CHECK(claim.counters.traffic.messagesBack == 4);
  CHECK(claim.rules.size() == MAX_CLAIMED_RULES - 2);
  CHECK((claim.rules[0].rule == "same"));
  CHECK(claim.rules[0].counters.opened == 1);
}

TEST_CASE("channels that a session claims are checked one by one; those that make no sense are named") {
  capnp::MallocMessageBuilder message;
  auto list = message.initRoot<schema::SessionControl::AttachResults>().initChannels(7);
  for (unsigned i = 0; i < list.size(); ++i) {
    list[i].setId(i);
    list[i].setService("http");
    list[i].setRule("r");
    list[i].setOpenForMilliseconds(~uint64_t(0));
  }
  list[0].setAsked(true);
  list[0].setTo("db1");
  list[1].setAsked(true);
  list[1].setTo("host");
  list[2].initCaller().setVm("web1");
  auto user = list[3].initCaller().initUser();
  user.setName("alice");
  user.setUid(0);
  auto groups = user.initGroups(2);
  groups.set(0, "ops");
  groups.set(1, "no/group");
  list[4].setAsked(true);
  list[4].setTo("../x");
  list[5].initCaller().setVm("x y");
  list[6].setService("a b");
  auto claims = parseChannels(list.asReader());
  REQUIRE(claims.good.size() == 4);
  CHECK((claims.good[0].way == ChannelClaim::Way::ASKED && claims.good[0].to == "db1"));
  CHECK((claims.good[1].way == ChannelClaim::Way::ASKED && claims.good[1].to == ""));
  CHECK((claims.good[2].way == ChannelClaim::Way::FROM_VM && claims.good[2].from == "web1"));
  CHECK((claims.good[3].way == ChannelClaim::Way::FROM_HOST));
  auto& caller = *KJ_REQUIRE_NONNULL(claims.good[3].caller);
  CHECK((caller.user == "alice"));
  CHECK(caller.groups.size() == 1);
  CHECK_FALSE(caller.isAdministrator);
  CHECK(claims.bad.size() == 3);
  CHECK(claims.bad[0] == 4);
}

TEST_CASE("a refusal's words are printable and short, its service a name or none") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Observer::ChannelRefusedParams>();
  params.setGrant(3);
  params.setService("no/name");
  params.setWhy(kj::str("a\nb", kj::repeat('x', 500)));
  auto refusal = parseRefusal(params.asReader());
  CHECK((refusal.service == ""));
  CHECK(refusal.count == 1);
  CHECK(refusal.why.startsWith("a?b"));
  CHECK(refusal.why.size() < 120);
}

// Counters ---------------------------------------------------------------------------------------------------------

PortClaim counted(uint64_t opened, uint64_t bytes, uint64_t ofRule) {
  PortClaim claim;
  claim.counters = {opened, 1, 2, {bytes, 2 * bytes, 3, 4, 5}};
  claim.mirrorDropped = 6;
  claim.rules.add(RuleClaim{kj::str("r"), {ofRule, 0, 1, {bytes, 0, 0, 0, 0}}});
  return claim;
}

TEST_CASE("a port's counters are the session's, and go on when another session process takes its place") {
  PortCounters port;
  port.claimed(counted(3, 100, 2));
  port.claimed(counted(4, 150, 3));  // absolute, not more
  auto now = port.forBoard();
  CHECK(now.opened == 4);
  CHECK(now.refused == 1);
  CHECK(now.active == 2);
  CHECK(now.bytesOut == 150);
  CHECK(now.bytesIn == 300);
  CHECK(now.messagesOut == 3);
  CHECK(now.messagesIn == 4);
  CHECK(now.throttledNanoseconds == 5);
  CHECK(now.mirrorDropped == 6);
  port.sessionEnded();
  CHECK(port.forBoard().opened == 4);
  CHECK(port.forBoard().active == 0);
  port.sessionEnded();  // nothing new
  CHECK(port.forBoard().bytesOut == 150);
  port.claimed(counted(1, 7, 1));
  auto later = port.forBoard();
  CHECK(later.opened == 5);
  CHECK(later.active == 2);
  CHECK(later.bytesOut == 157);
  CHECK(later.mirrorDropped == 12);
  unsigned rules = 0;
  port.forEachRule([&](kj::StringPtr rule, const PassClaim& passed) {
    ++rules;
    CHECK((rule == "r"));
    CHECK(passed.opened == 4);
    CHECK(passed.active == 1);
    CHECK(passed.traffic.bytesThere == 157);
  });
  CHECK(rules == 1);
}

TEST_CASE("counters stop at their bound, however many processes claim as much and end") {
  static constexpr uint64_t MOST = uint64_t(1) << 62;
  PortCounters port;
  port.refused();
  for (int i = 0; i < 8; ++i) {
    PortClaim claim;
    claim.counters = {MOST, MOST, 0, {}};
    claim.mirrorDropped = MOST;
    claim.rules.add(RuleClaim{kj::str("r"), {MOST, MOST, 0, {}}});
    port.claimed(kj::mv(claim));
    port.sessionEnded();
  }
  auto board = port.forBoard();
  CHECK(board.opened == MOST);
  CHECK(board.refused == MOST);
  CHECK(board.mirrorDropped == MOST);
  port.forEachRule([](kj::StringPtr, const PassClaim& passed) {
    CHECK(passed.opened == MOST);
    CHECK(passed.refused == MOST);
  });
}

TEST_CASE("a rule that makes room for others in the session process keeps what it had when it comes back there") {
  PortCounters port;
  port.claimed(counted(3, 100, 7));
  PortClaim without;
  without.counters.opened = 4;
  port.claimed(kj::mv(without));
  port.claimed(counted(5, 200, 2));
  port.forEachRule([](kj::StringPtr, const PassClaim& passed) {
    CHECK(passed.opened == 9);
    CHECK(passed.traffic.bytesThere == 300);
  });
  CHECK(port.forBoard().opened == 5);
}

TEST_CASE("what posternd turns away itself is counted beside it, with the last rule or reason") {
  PortCounters port;
  port.denied("no-rule");
  port.denied("no-web", 3);
  port.refused();
  port.claimed(counted(1, 1, 1));
  port.sessionEnded();
  auto board = port.forBoard();
  CHECK(board.denied == 4);
  CHECK(board.refused == 2);
  CHECK((board.lastDenied == "no-web"));
  capnp::MallocMessageBuilder message;
  auto shown = message.initRoot<schema::Port>();
  port.write(shown);
  CHECK(shown.getDenied() == 4);
  CHECK(shown.getRefused() == 2);
  CHECK((shown.getLastDeniedRule() == "no-web"));
  CHECK(shown.getOutOf().getBytesThere() == 1);
}

TEST_CASE("a session that invents rules does not fill posternd's memory with them") {
  PortCounters port;
  for (unsigned round = 0; round < 100; ++round) {
    PortClaim claim;
    for (unsigned i = 0; i < MAX_CLAIMED_RULES; ++i) {
      claim.rules.add(RuleClaim{kj::str("r", round, '-', i), PassClaim()});
    }
    port.claimed(kj::mv(claim));
  }
  unsigned rules = 0;
  port.forEachRule([&](auto, auto&&) { ++rules; });
  CHECK(rules == MAX_COUNTED_RULES);
}

// Floods -----------------------------------------------------------------------------------------------------------

struct Floods {
  GuestDenials denials;
  kj::TimePoint now = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  kj::Vector<kj::String> counts;

  bool first(kj::StringPtr vm, kj::StringPtr service, uint64_t times = 1) {
    return denials.isFirst(now, vm, {kj::str("vm:db1"), kj::str(service), kj::str(""), "denied"_kj, "no-rule"_kj},
                           times);
  }
  void pass(kj::Duration time) {
    now += time;
    denials.flush(now, [this](kj::StringPtr vm, const GuestDenial& denial, uint64_t times) {
      counts.add(kj::str(vm, ' ', denial.service, ' ', times));
    });
  }
};

// T111
TEST_CASE("as long as a flood goes on its counts come less and less often; after a pause it begins anew") {
  Floods f;
  CHECK(f.first("web1", "a"));
  for (int second = 0; second < 3600; ++second) {
    CHECK_FALSE(f.first("web1", "a"));
    f.pass(1 * kj::SECONDS);
  }
  CHECK(f.counts.size() > 10);
  CHECK(f.counts.size() < 25);
  f.pass(10 * kj::MINUTES);  // the rest
  f.pass(10 * kj::MINUTES);  // nothing came
  uint64_t sum = 0;
  for (auto& count : f.counts) sum += static_cast<uint64_t>(atoi(count.cStr() + 7));
  CHECK(sum == 3600);
  CHECK(f.first("web1", "a"));
}

// T111
TEST_CASE("one VM's flood leaves another's first denial to be seen") {
  Floods f;
  for (int i = 0; i < 1000; ++i) f.first("evil", kj::str("s", i));
  CHECK(f.first("web1", "a"));
  CHECK_FALSE(f.first("evil", "new"));
  CHECK(f.first("many", "a", 500));
  f.pass(6 * kj::SECONDS);
  REQUIRE(f.counts.size() == 2);
  auto all = kj::strArray(f.counts, ";");
  CHECK((all == "evil  997;many a 499" || all == "many a 499;evil  997"));
}

}  // namespace
}  // namespace postern::host
