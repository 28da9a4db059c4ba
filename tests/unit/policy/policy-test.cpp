#include "protocol/policy/policy.h"

#include "protocol/policy/expectation.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

TEST_CASE("administrators always have admin.* and nothing else without a rule") {
  auto nothing = Policy::denyAll(Side::HOST);
  auto root = Who::user("root"), web1 = Who::vm("web1");
  auto administrator = HostCaller::Rights::ADMINISTRATOR;
  for (auto call : {"admin.enroll"_kj, "admin.remove"_kj, "admin.rekey"_kj, "admin.block"_kj, "admin.policy"_kj,
                    "admin.audit"_kj, "admin.events"_kj}) {
    CHECK(verdict(*nothing, request(root.caller(administrator), TheHost(), call)) == "administrator");
    CHECK(verdict(*nothing, request(root.caller(), TheHost(), call)) == "no-rule");
  }
  CHECK(verdict(*nothing, request(root.caller(administrator), web1.asVm(), "ping")) == "no-rule");
  // Not even a deny takes it from them: nobody can lock himself out of the policy.
  auto denied = hostPolicy("[[deny]]\nid = \"d\"\nfrom = \"host\"\nto = \"host\"\ncall = \"admin.*\"\n");
  CHECK(verdict(*denied, request(root.caller(administrator), TheHost(), "admin.policy")) == "administrator");
  CHECK(verdict(*denied, request(root.caller(), TheHost(), "admin.policy")) == "deny-rule d");
}

TEST_CASE("of several rules that allow, the one with the smallest id decides limits and user, whatever their order") {
  std::string a =
      "[[allow]]\nid = \"a\"\nfrom = \"host\"\nto = \"any\"\ncall = \"*\"\nlimit = { open = 1 }\nrun-as = \"one\"\n";
  std::string b = "[[allow]]\nid = \"b\"\nfrom = \"user:x\"\nto = \"v\"\ncall = \"ping\"\nlimit = { open = 2 }\n";
  for (auto& text : {a + b, b + a}) {
    auto policy = hostPolicy(text);
    auto x = Who::user("x"), v = Who::vm("v");
    auto decision = policy->decide(request(x.caller(), v.asVm(), "ping"));
    CHECK((decision.ruleId() == "a"));
    CHECK((KJ_ASSERT_NONNULL(decision.limits().open) == 1));
    CHECK((KJ_ASSERT_NONNULL(decision.runAs()) == "one"));
  }
}

TEST_CASE("a denial carries no limits and no user") {
  auto policy = hostPolicy(
      "[[allow]]\nid = \"a\"\nfrom = \"host\"\nto = \"any\"\ncall = \"*\"\nlimit = { open = 1 }\nrun-as = \"one\"\n"
      "expires = 2020-01-01T00:00:00Z\n");
  auto x = Who::user("x"), v = Who::vm("v");
  auto decision = policy->decide(request(x.caller(), v.asVm(), "ping"));
  CHECK(decision.reason == Reason::EXPIRED);
  CHECK((decision.ruleId() == "a"));
  CHECK(decision.limits().isEmpty());
  CHECK(decision.runAs() == nullptr);
}

TEST_CASE("a rule holds until the second before it expires, whichever kind it is") {
  auto policy = hostPolicy(
      "[[allow]]\nid = \"a\"\nfrom = \"host\"\nto = \"any\"\ncall = \"ping\"\nexpires = 2027-01-15T08:00:10Z\n"
      "[[deny]]\nid = \"d\"\nfrom = \"host\"\nto = \"any\"\ncall = \"ping\"\nexpires = 2027-01-15T08:00:05Z\n");
  auto x = Who::user("x"), v = Who::vm("v");
  auto asked = request(x.caller(), v.asVm(), "ping");
  asked.now = at(NOW + 4);
  CHECK(verdict(*policy, asked) == "deny-rule d");
  asked.now = at(NOW + 5);
  CHECK(verdict(*policy, asked) == "rule a");
  asked.now = at(NOW + 9) + 999 * kj::MILLISECONDS;
  CHECK(verdict(*policy, asked) == "rule a");
  asked.now = at(NOW + 10);
  CHECK(verdict(*policy, asked) == "expired a");
}

TEST_CASE("a blocked port stops both directions and the host's calls, and leaves the status to be read") {
  auto policy = hostPolicy(
      "vm-to-vm = \"enabled\"\n[[allow]]\nid = \"a\"\nfrom = [\"host\", \"any\"]\nto = [\"any\", \"host\"]\ncall = "
      "\"*\"\n"
      "[port.v]\nblocked = true\nrate = \"1 MiB/s\"\ncalls = \"10/s\"\n[port.w]\nopen = 3\n");
  auto x = Who::user("x"), v = Who::vm("v"), w = Who::vm("w");
  CHECK(verdict(*policy, x, v, "ping") == "blocked-port");
  CHECK(verdict(*policy, x, v, "power.shutdown") == "blocked-port");
  CHECK(verdict(*policy, x, v, "status.read") == "rule a");
  CHECK(verdict(*policy, v, w, "service.x") == "blocked-port");
  CHECK(verdict(*policy, w, v, "service.x") == "blocked-port");
  CHECK(verdict(*policy, request(v.caller(), TheHost(), "service.x")) == "blocked-port");
  CHECK(verdict(*policy, x, w, "ping") == "rule a");
  CHECK(verdict(*policy, request(w.caller(), TheHost(), "service.x")) == "rule a");
  auto decision = policy->decide(request(x.caller(), v.asVm(), "ping"));
  CHECK((decision.toString() == "denied: the port of v is blocked (p.toml:8)"));
  CHECK((KJ_ASSERT_NONNULL(policy->port("v")).limits.rate == uint64_t(1) << 20));
  CHECK((KJ_ASSERT_NONNULL(policy->port("v")).limits.callsPerHour == 36000));
  CHECK_FALSE(KJ_ASSERT_NONNULL(policy->port("w")).blocked);
  CHECK(policy->port("x") == nullptr);
}

TEST_CASE("any is every VM and never the host, and host is every local caller and no VM") {
  auto policy = hostPolicy(
      "vm-to-vm = \"enabled\"\n[[allow]]\nid = \"a\"\nfrom = \"any\"\nto = \"any\"\ncall = \"service.x\"\n"
      "[[allow]]\nid = \"h\"\nfrom = \"host\"\nto = \"any\"\ncall = \"service.y\"\n");
  auto x = Who::user("x"), nobody = Who::user(""), v = Who::vm("v"), w = Who::vm("w");
  CHECK(verdict(*policy, v, w, "service.x") == "rule a");
  CHECK(verdict(*policy, x, w, "service.x") == "no-rule");
  CHECK(verdict(*policy, request(v.caller(), TheHost(), "service.x")) == "no-rule");
  CHECK(verdict(*policy, x, w, "service.y") == "rule h");
  CHECK(verdict(*policy, nobody, w, "service.y") == "rule h");
  CHECK(verdict(*policy, v, w, "service.y") == "no-rule");
}

TEST_CASE("users, groups, VMs and tags of one name are different") {
  auto policy = hostPolicy(
      "vm-to-vm = \"enabled\"\n"
      "[[allow]]\nid = \"user\"\nfrom = \"user:n\"\nto = \"tag:n\"\ncall = \"ping\"\n"
      "[[allow]]\nid = \"group\"\nfrom = \"group:n\"\nto = \"n\"\ncall = \"ping\"\n"
      "[[allow]]\nid = \"vm\"\nfrom = \"n\"\nto = \"host\"\ncall = \"service.x\"\n"
      "[[allow]]\nid = \"tag\"\nfrom = \"tag:n\"\nto = \"host\"\ncall = \"service.y\"\n");
  auto user = Who::user("n"), member = Who::user("m", {"n"}), vm = Who::vm("n"), tagged = Who::vm("v", {"n"});
  CHECK(verdict(*policy, user, tagged, "ping") == "rule user");
  CHECK(verdict(*policy, user, vm, "ping") == "no-rule");
  CHECK(verdict(*policy, member, vm, "ping") == "rule group");
  CHECK(verdict(*policy, member, tagged, "ping") == "no-rule");
  CHECK(verdict(*policy, request(vm.caller(), TheHost(), "service.x")) == "rule vm");
  CHECK(verdict(*policy, request(tagged.caller(), TheHost(), "service.x")) == "no-rule");
  CHECK(verdict(*policy, request(vm.caller(), TheHost(), "service.y")) == "no-rule");
  CHECK(verdict(*policy, request(tagged.caller(), TheHost(), "service.y")) == "rule tag");
}

// T49
TEST_CASE("a deny of a path cannot be slipped past by another spelling, and a file call without a path is none") {
  auto policy = hostPolicy(
      "[[allow]]\nid = \"a\"\nfrom = \"host\"\nto = \"any\"\ncall = \"file.*\"\n"
      "[[deny]]\nid = \"d\"\nfrom = \"host\"\nto = \"any\"\ncall = \"file.*\"\nargs = { path = [\"/etc\", \"/etc/**\"] "
      "}\n");
  auto x = Who::user("x"), v = Who::vm("v");
  CHECK(verdict(*policy, x, v, "file.get", "/srv/a"_kj) == "rule a");
  CHECK(verdict(*policy, x, v, "file.get", "/etc/shadow"_kj) == "deny-rule d");
  CHECK(verdict(*policy, x, v, "file.list", "/etc"_kj) == "deny-rule d");
  for (auto path : {"/etc/"_kj, "//etc/shadow"_kj, "/srv/../etc/shadow"_kj, "/./etc/shadow"_kj, "etc/shadow"_kj, ""_kj,
                    "/etc//shadow"_kj, kj::StringPtr("/srv\0/x", 7)}) {
    CHECK(verdict(*policy, x, v, "file.get", path) == "bad-path");
  }
  CHECK(verdict(*policy, x, v, "file.get") == "bad-path");
  CHECK(verdict(*policy, x, v, "ping", "/srv"_kj) == "bad-path");
}

TEST_CASE("in a guest, from narrows to users and VMs that the host vouches for") {
  auto policy = guestPolicy(
      "groups = { ops = [\"user:a\", \"group:g\"] }\n"
      "[[allow]]\nid = \"r\"\nfrom = \"@ops\"\ncall = \"power.*\"\n"
      "[[allow]]\nid = \"s\"\nfrom = \"any\"\ncall = \"service.x\"\n"
      "[[deny]]\nid = \"d\"\nfrom = \"web2\"\ncall = \"service.*\"\n"
      "[[test]]\nwant = \"allow r\"\nfrom = \"group:g\"\ncall = \"power.restart\"\n");
  auto self = Who::vm("");
  CHECK(verdict(*policy, Who::user("a"), self, "power.restart") == "rule r");
  CHECK(verdict(*policy, Who::user("z", {"g"}), self, "power.restart") == "rule r");
  CHECK(verdict(*policy, Who::user("z"), self, "power.restart") == "no-rule");
  CHECK(verdict(*policy, Who::vm("web1"), self, "service.x") == "rule s");
  CHECK(verdict(*policy, Who::vm("web2"), self, "service.x") == "deny-rule d");
  CHECK(verdict(*policy, Who::user("a"), self, "service.x") == "no-rule");
}

TEST_CASE("in a guest, a rule without from is for callers on the host and for no VM") {
  auto policy = guestPolicy("[[allow]]\nid = \"r\"\ncall = \"*\"\n");
  auto self = Who::vm("");
  CHECK(verdict(*policy, Who::user("a"), self, "service.x") == "rule r");
  CHECK(verdict(*policy, Who::user(""), self, "ping") == "rule r");
  CHECK(verdict(*policy, Who::vm("web1"), self, "service.x") == "no-rule");
}

TEST_CASE("a guest's policy has nothing to say about calls of the host") {
  auto policy = guestPolicy("[[allow]]\nid = \"r\"\nfrom = [\"host\", \"any\"]\ncall = \"*\"\n");
  auto root = Who::user("root"), vm = Who::vm("v");
  CHECK(verdict(*policy, request(root.caller(HostCaller::Rights::ADMINISTRATOR), TheHost(), "admin.enroll")) ==
        "not-callable");
  CHECK(verdict(*policy, request(vm.caller(), TheHost(), "service.x")) == "not-callable");
  CHECK(policy->advise(request(vm.caller(), TheHost(), "service.x")).toml == nullptr);
}

TEST_CASE("tests are judged as if nothing had expired, unless they name a time") {
  std::string rule =
      "[[allow]]\nid = \"r\"\nfrom = \"host\"\nto = \"v\"\ncall = \"ping\"\nexpires = 2020-01-01T00:00:00Z\n";
  auto test = [&](const std::string& want, const std::string& more) {
    return errorsOf(
        policyText(rule + "[[test]]\nwant = \"" + want + "\"\nfrom = \"host\"\nto = \"v\"\ncall = \"ping\"\n" + more));
  };
  CHECK(test("allow r", "") == "");
  CHECK(test("allow r", "at = 2019-12-31T23:59:59Z\n") == "");
  CHECK(test("deny", "at = 2020-01-01T00:00:00Z\n") == "");
  CHECK(test("deny", "") != "");
  CHECK(test("allow r", "at = 9999-12-31T23:59:59Z\n") != "");
}

TEST_CASE("tests can be about groups, tags, administrators, paths and the host") {
  auto policy = hostPolicy(
      "[[allow]]\nid = \"r\"\nfrom = \"group:g\"\nto = \"tag:t\"\ncall = \"file.*\"\nargs = { path = \"/srv/**\" }\n"
      "[[test]]\nwant = \"allow r\"\nfrom = [\"user:a\", \"group:g\"]\nto = [\"v\", \"tag:t\"]\ncall = "
      "\"file.get\"\nargs = { path = \"/srv/a\" }\n"
      "[[test]]\nwant = \"deny\"\nfrom = \"user:a\"\nto = [\"v\", \"tag:t\"]\ncall = \"file.get\"\nargs = { path = "
      "\"/srv/a\" }\n"
      "[[test]]\nwant = \"deny\"\nfrom = \"group:g\"\nto = \"any\"\ncall = \"file.get\"\nargs = { path = \"/srv/a\" }\n"
      "[[test]]\nwant = \"allow\"\nfrom = \"user:root\"\nto = \"host\"\ncall = \"admin.enroll\"\n"
      "[[test]]\nwant = \"deny\"\nfrom = \"host\"\nto = \"host\"\ncall = \"admin.enroll\"\n"
      "[[test]]\nwant = \"deny\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.x\"\n");
  auto results = runTests(*policy);
  CHECK(results.size() == 6);
  for (auto& result : results) CHECK(result.passed);
  CHECK((results[0].toString() ==
         "user:a+group:g, file.get /srv/a of v+tag:t: wanted allow by rule 'r', was allowed by rule 'r' (p.toml:2)"));
}

}  // namespace
}  // namespace postern::policy
