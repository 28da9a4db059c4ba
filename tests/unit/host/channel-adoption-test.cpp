// Channels: what a new posternd makes of what an earlier one has allowed.

#include "tests/unit/host/channel-desk-fixture.h"

namespace postern::host {
namespace {

using test::adopt;
using test::claimed;
using test::claimedFrom;
using test::isOver;
using test::PAIR;
using test::PairLab;
using test::says;

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
