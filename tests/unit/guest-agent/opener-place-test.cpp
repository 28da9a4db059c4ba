// Where an order is carried out and as whom, and the broker's word to its opener.

#include <grp.h>
#include <pwd.h>

#include <random>

#include "guest-agent/files/opener-order.h"
#include "guest-agent/files/opener-plan.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

using transfer::FileCall;
using transfer::FileOrder;

kj::Own<const GuestPolicy> policyOf(kj::StringPtr rules) {
  auto parsed = GuestPolicy::parse("agent.toml", kj::str("policy = 1\n", rules));
  KJ_IF_MAYBE (errors, parsed.tryGet<PolicyErrors>()) KJ_FAIL_REQUIRE("the test's policy", errors->lines);
  return kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
}

kj::String rule(kj::StringPtr id, kj::StringPtr paths, kj::StringPtr runAs = "") {
  auto user = runAs.size() == 0 ? kj::String() : kj::str("run-as = \"", runAs, "\"\n");
  return kj::str("[[allow]]\nid = \"", id, "\"\ncall = [\"file.*\"]\nargs = { path = ", paths, " }\n", user);
}

FileOrder orderOf(FileCall call, kj::StringPtr path) {
  FileOrder order;
  order.call = call;
  order.path = kj::str(path);
  return order;
}

// "ROOT as USER", or "denied".
kj::String placeIn(const GuestPolicy& policy, FileCall call, kj::StringPtr path) {
  VouchedCaller alice = VouchedUser{kj::str("alice"), 0, nullptr};
  auto decided = policy.decideFile(alice, orderOf(call, path));
  KJ_IF_MAYBE (place, decided.tryGet<FilePlace>()) return kj::str(place->root, " as ", place->runAs);
  return kj::str("denied");
}

TEST_CASE("an order is carried out below the folder of the rule that allows it, as that rule's user") {
  auto policy =
      policyOf(kj::str(rule("a", "\"/srv/www/**\"", "www-data"), rule("b", "[\"/etc/hosts\", \"/home/*/in/**\"]")));
  CHECK((placeIn(*policy, FileCall::PUT, "/srv/www/site") == "/srv/www as www-data"));
  CHECK((placeIn(*policy, FileCall::REMOVE, "/srv/www/site/x") == "/srv/www as www-data"));
  CHECK((placeIn(*policy, FileCall::GET, "/etc/hosts") == "/etc as "));
  CHECK((placeIn(*policy, FileCall::GET, "/home/alice/in/x") == "/home as "));
  CHECK((placeIn(*policy, FileCall::GET, "/etc/passwd") == "denied"));
}

// T74
TEST_CASE("what a directory holds opens it for get, put and list alone, and nothing further up") {
  auto policy =
      policyOf(kj::str(rule("a", "\"/srv/www/**\"", "www-data"), rule("b", "\"/home/*/in/**\""),
                       "[[deny]]\nid = \"c\"\ncall = [\"file.*\"]\nargs = { path = \"/srv/www/private\" }\n"));
  for (auto call : {FileCall::GET, FileCall::PUT, FileCall::LIST}) {
    CHECK((placeIn(*policy, call, "/srv/www") == "/srv/www as www-data"));
    CHECK((placeIn(*policy, call, "/home/alice/in") == "/home as "));
    for (auto path :
         {"/srv", "/", "/home", "/home/alice", "/srv/wwwx", "/srv/www2", "/home/alice/out", "/srv/www/private"}) {
      CHECK((placeIn(*policy, call, path) == "denied"));
    }
  }
  for (auto call : {FileCall::STAT, FileCall::MKDIR, FileCall::REMOVE}) {
    CHECK((placeIn(*policy, call, "/srv/www") == "denied"));
  }
  CHECK((placeIn(*GuestPolicy::denyAll(), FileCall::LIST, "/") == "denied"));
}

// T71
TEST_CASE("in a place that is one user's, what a rule allows another user is denied") {
  auto policy = policyOf(kj::str(rule("a", "\"/srv/site/*\"", "www-data"), rule("b", "\"/srv/site\"", "root"),
                                 rule("c", "\"/srv/**\"", "www-data"),
                                 "[[deny]]\nid = \"d\"\ncall = [\"file.*\"]\nargs = { path = \"/srv/site/key\" }\n"));
  VouchedCaller alice = VouchedUser{kj::str("alice"), 0, nullptr};
  auto root = policy->decideFile(alice, orderOf(FileCall::REMOVE, "/srv/site"));
  REQUIRE(root.is<FilePlace>());
  CHECK((root.get<FilePlace>().runAs == "root"));
  auto& scope = root.get<FilePlace>().scope;
  CHECK(scope.decide("/srv/site"_kj).allowed);
  CHECK_FALSE(scope.decide("/srv/site/x"_kj).allowed);
  CHECK((scope.decide("/srv/site/key"_kj).rule == "d"));
  // The same where a rule is the way.
  auto way = policy->decideFile(alice, orderOf(FileCall::PUT, "/srv"));
  REQUIRE(way.is<FilePlace>());
  CHECK((way.get<FilePlace>().runAs == "root"));
  CHECK(way.get<FilePlace>().scope.decide("/srv/site"_kj).allowed);
  CHECK_FALSE(way.get<FilePlace>().scope.decide("/srv/x"_kj).allowed);
}

TEST_CASE("a pattern may match in a directory if it ends, or ** begins, one component below it") {
  CHECK(mayMatchIn("/srv", "/srv/**"));
  CHECK(mayMatchIn("/srv", "/srv/*.html"));
  CHECK(mayMatchIn("/", "/**"));
  CHECK(mayMatchIn("/", "/srv"));
  CHECK(mayMatchIn("/a/b/c", "/a/**/z"));
  CHECK(mayMatchIn("/a/xb", "/a/?b/*.html"));
  CHECK_FALSE(mayMatchIn("/", "/srv/**"));
  CHECK_FALSE(mayMatchIn("/srv", "/srv"));
  CHECK_FALSE(mayMatchIn("/srv/www", "/srv/*"));
  CHECK_FALSE(mayMatchIn("/a/b", "/a/?b/*.html"));
  CHECK_FALSE(mayMatchIn("/", "/"));
}

// T71
TEST_CASE("nobody becomes root unless root is named, and who is not root becomes nobody else") {
  RunAs itself{geteuid(), getegid(), false, {}};
  RunAs other{65534, 65534, true, {}};
  CHECK(findOpenerUser("no-such-user-here", itself).is<kj::String>());
  if (geteuid() != 0) {
    CHECK(findOpenerUser("", itself).get<OpenerUser>().identity == nullptr);
    CHECK(findOpenerUser("root", itself).is<kj::String>());
    return;
  }
  CHECK(findOpenerUser("", itself).is<kj::String>());
  auto agents = findOpenerUser("", other);
  CHECK(KJ_REQUIRE_NONNULL(agents.get<OpenerUser>().identity).uid == 65534);
  CHECK(agents.get<OpenerUser>().groups.size() == 0);
  auto root = findOpenerUser("root", other);
  CHECK(KJ_REQUIRE_NONNULL(root.get<OpenerUser>().identity).uid == 0);
  // With the groups that a login has, its own first of all.
  auto daemon = findOpenerUser("daemon", other);
  auto& user = daemon.get<OpenerUser>();
  CHECK(KJ_REQUIRE_NONNULL(user.identity).uid == getpwnam("daemon")->pw_uid);
  REQUIRE(user.groups.size() >= 1);
  CHECK(user.groups[0] == getpwnam("daemon")->pw_gid);
}

TEST_CASE("an opener's order survives its way, and altered bytes are an order or a reason, never more") {
  auto policy = policyOf(rule("a", "[\"/srv/www/**\", \"/srv/data/*.csv\"]", "www-data"));
  VouchedCaller alice = VouchedUser{kj::str("alice"), 0, nullptr};
  auto order = orderOf(FileCall::PUT, "/srv/www/\xff\n");
  order.verify = true;
  auto decided = policy->decideFile(alice, order);
  auto bytes = kj::heapArray<kj::byte>(openerOrderBytes(order, decided.get<FilePlace>(), "www-data").asBytes());
  auto parsed = parseOpenerOrder(bytes);
  REQUIRE(parsed.is<OpenerOrder>());
  auto& there = parsed.get<OpenerOrder>();
  CHECK((there.order.path == order.path));
  CHECK(there.order.verify);
  CHECK_FALSE(there.order.archive);
  CHECK((there.root == "/srv/www"));
  CHECK((there.user == "www-data"));
  CHECK(there.scope.decide("/srv/data/x.csv"_kj).allowed);
  CHECK_FALSE(there.scope.decide("/srv/data/x"_kj).allowed);

  for (size_t length = 0; length < bytes.size(); ++length)
    CHECK(parseOpenerOrder(bytes.slice(0, length)).is<kj::String>());
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      bytes[i] ^= kj::byte(1u << bit);
      auto altered = parseOpenerOrder(bytes);
      KJ_IF_MAYBE (taken, altered.tryGet<OpenerOrder>()) CHECK(isWithin(taken->root, taken->order.path));
      bytes[i] ^= kj::byte(1u << bit);
    }
  }
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    auto noise = kj::heapArray<kj::byte>(random() % 512 * 8);
    for (auto& byte : noise) byte = kj::byte(random());
    CHECK(parseOpenerOrder(noise).is<kj::String>());
  }
}

}  // namespace
}  // namespace postern::guest::test
