// Services: what a VM may not ask of itself, who talks in a segment, limits of 0, mirrors, and whether there is any
// service for somebody.
#include "protocol/policy/any-service.h"
#include "protocol/policy/explain.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

std::string explained(const Policy& policy, const Request& asked) {
  return explain(policy, asked).toText().cStr();
}

const std::string SEGMENT =
    "[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = [\"head\", \"tail\"]\n"
    "community = { web = [\"web1\", \"web2\"], db = \"@dbs\", mixed = [\"web3\", \"tag:t\"] }\n"
    "isolated = [\"run1\", \"run2\"]\n";
const std::string GROUPS = "vm-to-vm = \"enabled\"\n[groups]\ndbs = [\"db1\", \"db2\"]\n";

TEST_CASE("in a segment the promiscuous talk with all, a community with itself, and the isolated with no other") {
  auto policy = hostPolicy(GROUPS + SEGMENT);
  auto talk = [&](const Who& a, const Who& b) {
    bool there = policy->decide(request(a.caller(), b.asVm(), "service.x")).isAllowed();
    bool back = policy->decide(request(b.caller(), a.asVm(), "service.x")).isAllowed();
    CHECK(there == back);
    return there;
  };
  auto head = Who::vm("head"), tail = Who::vm("tail"), web1 = Who::vm("web1"), web2 = Who::vm("web2"),
       db1 = Who::vm("db1"), db2 = Who::vm("db2"), run1 = Who::vm("run1"), run2 = Who::vm("run2"),
       tagged = Who::vm("other", {"t"}), stranger = Who::vm("stranger");
  for (auto* member : {&tail, &web1, &db2, &run1, &tagged}) CHECK(talk(head, *member));
  CHECK(talk(web1, web2));
  CHECK(talk(db1, db2));
  CHECK(talk(Who::vm("web3"), tagged));
  CHECK_FALSE(talk(web2, tagged));
  CHECK_FALSE(talk(web1, db1));
  CHECK_FALSE(talk(web1, run1));
  CHECK_FALSE(talk(run1, run2));
  for (auto* member : {&head, &web1, &run1, &stranger}) CHECK_FALSE(talk(stranger, *member));
  // For nothing else, and for nobody else.
  CHECK(verdict(*policy, head, web1, "service.y") == "no-rule");
  CHECK(verdict(*policy, Who::user("head"), web1, "service.x") == "no-rule");
  CHECK(verdict(*policy, request(head.caller(), TheHost(), "service.x")) == "no-rule");
}

TEST_CASE("a segment counts for nothing while vm-to-vm is disabled or a port is blocked") {
  auto off = hostPolicy("[groups]\ndbs = [\"db1\", \"db2\"]\n" + SEGMENT);
  auto head = Who::vm("head"), web1 = Who::vm("web1"), web2 = Who::vm("web2");
  CHECK(verdict(*off, head, web1, "service.x") == "vm-to-vm-disabled");
  CHECK(explained(*off, request(head.caller(), web1.asVm(), "service.x"))
            .find("segment 's' (p.toml:4) would allow it, but is void while vm-to-vm is disabled") !=
        std::string::npos);
  auto blocked = hostPolicy(GROUPS + SEGMENT + "[port.web1]\nblocked = true\n");
  CHECK(verdict(*blocked, head, web1, "service.x") == "blocked-port");
  CHECK(verdict(*blocked, web1, head, "service.x") == "blocked-port");
  CHECK(verdict(*blocked, head, web2, "service.x") == "segment s");
}

TEST_CASE("no rule routes a VM to itself, be it by any, by a group or by a segment") {
  auto policy = hostPolicy(GROUPS + SEGMENT +
                           "[[allow]]\nid = \"a\"\nfrom = \"any\"\nto = \"any\"\ncall = \"service.*\"\n"
                           "[[allow]]\nid = \"g\"\nfrom = \"@dbs\"\nto = \"@dbs\"\ncall = \"service.*\"\n");
  for (auto name : {"head", "web1", "db1", "stranger"}) {
    auto vm = Who::vm(name);
    CHECK(verdict(*policy, vm, vm, "service.x") == "itself");
    CHECK_FALSE(mayGrantService(*policy, vm.caller(), vm.asVm(), at(NOW)));
    // Nor does the advice pretend that a rule could.
    auto advice = policy->advise(request(vm.caller(), vm.asVm(), "service.x"));
    CHECK(advice.toml == nullptr);
  }
  CHECK(verdict(*policy, Who::vm("db1"), Who::vm("db2"), "service.x") == "rule a");
  // A deny of it is no more than a deny, and vm-to-vm makes no difference.
  auto off = hostPolicy("[[deny]]\nid = \"d\"\nfrom = \"any\"\nto = \"any\"\ncall = \"*\"\n");
  CHECK(verdict(*off, Who::vm("a"), Who::vm("a"), "service.x") == "itself");
  // Tests about VMs without a name are about two of them.
  CHECK(errorsOf(policyText("vm-to-vm = \"enabled\"\ntest = [ { want = \"allow a\", from = \"any\", to = \"any\", call "
                            "= \"service.x\" } ]\n[[allow]]\nid = \"a\"\nfrom = \"any\"\nto = \"any\"\ncall = "
                            "\"service.*\"\n")) == "");
}

TEST_CASE("a guest does not know its own name, and decides for every VM that the host vouches for") {
  auto policy = guestPolicy("[[allow]]\nid = \"a\"\nfrom = \"any\"\ncall = \"service.x\"\n");
  CHECK(verdict(*policy, Who::vm("web1"), Who::vm(""), "service.x") == "rule a");
  CHECK(mayGrantService(*policy, Who::vm("web1").caller(), Who::vm("").asVm(), at(NOW)));
  CHECK_FALSE(mayGrantService(*policy, Who::user("a").caller(), Who::vm("").asVm(), at(NOW)));
}

TEST_CASE("rules in which a VM meets others beside itself are in order") {
  for (auto rule : {"from = [\"web1\", \"web2\"]\nto = \"web1\"", "from = \"tag:t\"\nto = \"tag:t\"",
                    "from = \"web1\"\nto = \"any\"", "from = \"web1\"\nto = [\"web1\", \"host\"]",
                    "from = [\"user:a\", \"web1\"]\nto = \"web1\"", "from = \"@dbs\"\nto = \"@dbs\""}) {
    INFO(rule);
    CHECK(errorsOf(policyText(GROUPS + "[[allow]]\nid = \"r\"\n" + rule + "\ncall = \"service.x\"\n")) == "");
  }
  for (auto members : {"promiscuous = \"a\"\nisolated = \"b\"", "promiscuous = \"tag:t\"",
                       "community = { x = \"@dbs\" }", "community = { x = [\"a\", \"b\"] }\nisolated = \"c\""}) {
    INFO(members);
    CHECK(errorsOf(policyText(GROUPS + "[[segment]]\nid = \"r\"\ncall = \"service.x\"\n" + members + "\n")) == "");
  }
}

// Limits ------------------------------------------------------------------------------------------------------------

TEST_CASE("a limit of 0 loads with a warning, and is told where it is asked about") {
  auto result = loadFiles({{"p.toml", policyText("[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"v\"\n"
                                                 "call = \"service.x\"\nlimit = { open = 0, calls = \"0/h\" }\n"
                                                 "[port.v]\nrate = \"0 B/s\"\nbytes = \"0 B\"\n")}},
                          Side::HOST);
  REQUIRE(result.is<Loaded>());
  auto& loaded = result.get<Loaded>();
  auto warnings = linesOf(loaded.warnings);
  for (auto text :
       {"p.toml:7: 'open' is 0", "p.toml:7: 'calls' is 0", "p.toml:9: 'rate' is 0", "p.toml:10: 'bytes' is 0"}) {
    INFO(warnings);
    CHECK(warnings.find(text) != std::string::npos);
  }
  auto a = Who::user("a"), v = Who::vm("v");
  auto asked = request(a.caller(), v.asVm(), "service.x");
  auto decision = loaded.policy->decide(asked);
  CHECK(decision.isAllowed());
  CHECK((KJ_ASSERT_NONNULL(decision.limits().open) == 0));
  CHECK((KJ_ASSERT_NONNULL(decision.limits().callsPerHour) == 0));
  CHECK(decision.limits().rate == nullptr);
  CHECK((KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(loaded.policy->port("v")).limits.bytes) == 0));
  auto text = explained(*loaded.policy, asked);
  INFO(text);
  for (auto line : {"  limit of rule 'r', for each VM: open is 0, so every one is refused\n",
                    "  limit of rule 'r', for each VM: calls is 0, so every one is refused\n",
                    "  limit of the port of v: rate is 0, so every one is refused\n",
                    "  limit of the port of v: bytes is 0, so every one is refused"}) {
    CHECK(text.find(line) != std::string::npos);
  }
}

TEST_CASE("no limit and a limit of 0 are two policies") {
  auto with = [](const std::string& limit) { return hostPolicy("[port.v]\nblocked = false\n" + limit); };
  CHECK((with("")->hash() != with("open = 0\n")->hash()));
  CHECK((with("bytes = \"0 B\"\n")->hash() != with("open = 0\n")->hash()));
}

TEST_CASE("an explanation says what each limit of the rule and of both ports does") {
  auto policy = hostPolicy(
      "vm-to-vm = \"enabled\"\n[[allow]]\nid = \"r\"\nfrom = \"a\"\nto = \"b\"\ncall = \"service.*\"\n"
      "limit = { rate = \"50 MiB/s\", burst = \"8 MiB\", peak = \"1 GB/s\", open = 4, calls = \"30/min\" }\n"
      "[port.a]\nbytes = \"64 MiB\"\n[port.b]\nrate = \"1025 B/s\"\n[port.c]\nopen = 1\n");
  auto a = Who::vm("a"), b = Who::vm("b");
  CHECK(
      explained(*policy, request(a.caller(), b.asVm(), "service.x")) ==
      "allowed by rule 'r' (p.toml:3)\n"
      "  allow 'r' (p.toml:3) decides\n"
      "  limit of rule 'r', for each VM: 50 MiB a second, 8 MiB at once after a pause, never more than 1 GB a second; "
      "more waits\n"
      "  limit of rule 'r', for each VM: at most 4 open at one time; one more is refused\n"
      "  limit of rule 'r', for each VM: at most 1800 begun in an hour; one more is refused\n"
      "  limit of the port of a: at most 64 MiB under way that the receiver has not taken yet; more waits\n"
      "  limit of the port of b: 1025 B a second; more waits");
  // A denial has no terms.
  CHECK(explained(*policy, request(b.caller(), a.asVm(), "service.x")).find("limit") == std::string::npos);
}

// Mirrors -----------------------------------------------------------------------------------------------------------

std::string mirrored(const std::string& mirror) {
  return "[[allow]]\nid = \"r\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.x\"\nmirror = " + mirror + "\n";
}

TEST_CASE("a mirror is announced, with its bytes or without") {
  auto v = Who::vm("v");
  auto asked = request(v.caller(), TheHost(), "service.x");
  auto full = hostPolicy(mirrored("{ to = \"unix:/run/ids/postern.sock\", copy = \"full\" }"));
  auto text = explained(*full, asked);
  CHECK(text.find("  mirrored, with its bytes, to unix:/run/ids/postern.sock") != std::string::npos);
  auto& mirror = KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(full->decide(asked).rule).mirror);
  CHECK((mirror.to == "/run/ids/postern.sock"));
  CHECK(mirror.copy == Mirror::Copy::FULL);

  auto meta = hostPolicy(mirrored("{ to = \"unix:/run/ids/postern.sock\", copy = \"meta\" }"));
  CHECK(explained(*meta, asked).find("  mirrored, without its bytes, to unix:/run/ids/postern.sock") !=
        std::string::npos);
  auto elsewhere = hostPolicy(mirrored("{ to = \"unix:/run/ids/other.sock\", copy = \"meta\" }"));
  CHECK((full->hash() != meta->hash()));
  CHECK((meta->hash() != elsewhere->hash()));

  auto segment = hostPolicy(GROUPS + SEGMENT + "mirror = { to = \"unix:/run/ids.sock\", copy = \"full\" }\n");
  auto head = Who::vm("head"), web1 = Who::vm("web1");
  text = explained(*segment, request(head.caller(), web1.asVm(), "service.x"));
  CHECK(text.find("  mirrored, with its bytes, to unix:/run/ids.sock") != std::string::npos);
}

TEST_CASE("a mirror leads to a Unix socket by its whole, canonical path") {
  auto errors = [](const std::string& to) {
    return errorsOf(policyText(mirrored("{ to = \"" + to + "\", copy = \"meta\" }")));
  };
  CHECK(errors("unix:/" + std::string(106, 'a')) == "");
  for (auto [to, why] : std::initializer_list<std::pair<std::string, const char*>>{
           {"unix:/" + std::string(107, 'a'), "has over 107 bytes of path"},
           {"ids", "does not begin with 'unix:'"},
           {"/run/ids.sock", "does not begin with 'unix:'"},
           {"tcp:127.0.0.1:99", "does not begin with 'unix:'"},
           {"", "does not begin with 'unix:'"},
           {"unix:", "has no path from the root"},
           {"unix:ids.sock", "has no path from the root"},
           {"unix:@ids", "has no path from the root"},
           {"unix:/", "has '.', '..', '//' or a slash at its end"},
           {"unix:/run/", "has '.', '..', '//' or a slash at its end"},
           {"unix:/run//ids", "has '.', '..', '//' or a slash at its end"},
           {"unix:/run/../ids", "has '.', '..', '//' or a slash at its end"},
           {"unix:/run/\\u0000ids", "control character"},
           {"unix:/run/\\nids", "control character"}}) {
    auto text = errors(to);
    INFO(to);
    INFO(text);
    CHECK(text.find("p.toml:7: ") == 0);
    CHECK(text.find(why) != std::string::npos);
  }
}

// Any service -------------------------------------------------------------------------------------------------------

TEST_CASE("whether somebody may have a service of a VM follows from rules, ports, expiry and denies of all of them") {
  auto policy = hostPolicy(
      "[[allow]]\nid = \"x\"\nfrom = \"user:a\"\nto = [\"v\", \"w\"]\ncall = [\"ping\", \"service.x\"]\n"
      "[[allow]]\nid = \"old\"\nfrom = \"user:b\"\nto = \"v\"\ncall = \"service.*\"\nexpires = 2020-01-01T00:00:00Z\n"
      "[[allow]]\nid = \"ops\"\nfrom = \"user:c\"\nto = \"v\"\ncall = [\"power.*\", \"file.get\"]\n"
      "[[allow]]\nid = \"all\"\nfrom = [\"group:g\", \"user:d\"]\nto = \"v\"\ncall = \"*\"\n"
      "[[deny]]\nid = \"no\"\nfrom = \"user:d\"\nto = \"v\"\ncall = \"service.*\"\n"
      "[[deny]]\nid = \"one\"\nfrom = \"group:g\"\nto = \"v\"\ncall = \"service.y\"\n"
      "[[allow]]\nid = \"up\"\nfrom = \"v\"\nto = \"host\"\ncall = \"service.ntp\"\n"
      "[port.w]\nblocked = true\n");
  auto v = Who::vm("v"), w = Who::vm("w");
  auto may = [&](const Who& caller, const Target& target) {
    return mayGrantService(*policy, caller.caller(), target, at(NOW));
  };
  CHECK(may(Who::user("a"), v.asVm()));
  CHECK_FALSE(may(Who::user("a"), w.asVm()));
  CHECK_FALSE(may(Who::user("b"), v.asVm()));
  CHECK(mayGrantService(*policy, Who::user("b").caller(), v.asVm(), kj::UNIX_EPOCH));
  CHECK_FALSE(may(Who::user("c"), v.asVm()));
  CHECK_FALSE(may(Who::user("d"), v.asVm()));
  CHECK(may(Who::user("e", {"g"}), v.asVm()));
  CHECK_FALSE(may(Who::user("e"), v.asVm()));
  CHECK_FALSE(may(Who::user("a"), TheHost()));
  CHECK(may(v, TheHost()));
  CHECK_FALSE(may(w, TheHost()));
  CHECK_FALSE(may(Who::vm("u"), TheHost()));
}

TEST_CASE("between VMs nobody has a service while vm-to-vm is disabled") {
  std::string rule = "[[allow]]\nid = \"r\"\nfrom = \"a\"\nto = \"b\"\ncall = \"service.x\"\n";
  auto a = Who::vm("a"), b = Who::vm("b");
  CHECK_FALSE(mayGrantService(*hostPolicy(rule), a.caller(), b.asVm(), at(NOW)));
  auto enabled = hostPolicy("vm-to-vm = \"enabled\"\n" + rule);
  CHECK(mayGrantService(*enabled, a.caller(), b.asVm(), at(NOW)));
  CHECK_FALSE(mayGrantService(*enabled, b.caller(), a.asVm(), at(NOW)));
}

}  // namespace
}  // namespace postern::policy
