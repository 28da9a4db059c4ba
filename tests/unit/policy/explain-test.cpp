#include "protocol/policy/explain.h"

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

constexpr auto RULES = R"([groups]
web = ["web1", "web2"]

[[allow]]
id = "ops"
from = "user:alice"
to = "@web"
call = "power.*"

[[allow]]
id = "also"
from = "host"
to = "any"
call = "*"

[[allow]]
id = "old"
from = "user:alice"
to = "web1"
call = "power.restart"
expires = 2020-01-01T00:00:00Z

[[deny]]
id = "never-bob"
from = "user:bob"
to = "@web"
call = "*"

[[allow]]
id = "content"
from = "user:alice"
to = "@web"
call = "file.get"
args = { path = "/srv/**" }

[[allow]]
id = "peers"
from = "@web"
to = "@web"
call = "service.*"
)";

std::string explained(const Policy& policy, const Request& asked) {
  return explain(policy, asked).toText().cStr();
}

TEST_CASE("an explanation names who decides, who agrees, and what keeps the others out") {
  auto policy = hostPolicy(RULES);
  auto alice = Who::user("alice"), web1 = Who::vm("web1");
  CHECK(explained(*policy, request(alice.caller(), web1.asVm(), "power.restart")) ==
        "allowed by rule 'also' (p.toml:11)\n"
        "  allow 'also' (p.toml:11) decides\n"
        "  allow 'ops' (p.toml:5) matches as well\n"
        "  allow 'old' (p.toml:17) would match, but has expired\n"
        "  deny 'never-bob' (p.toml:24) is for other callers\n"
        "  2 rules have nothing to do with it");
}

TEST_CASE("an explanation of a denial says what it overrules and what to change") {
  auto policy = hostPolicy(RULES);
  auto bob = Who::user("bob"), web2 = Who::vm("web2"), db1 = Who::vm("db1");
  CHECK(explained(*policy, request(bob.caller(), web2.asVm(), "ping")) ==
        "denied by rule 'never-bob' (p.toml:24)\n"
        "  deny 'never-bob' (p.toml:24) decides\n"
        "  allow 'also' (p.toml:11) would allow it, but is overruled\n"
        "  4 rules have nothing to do with it\n"
        "to allow it: narrow or remove the [[deny]] 'never-bob' at p.toml:24; no rule overrules it");
  auto narrow = hostPolicy(
      "[[allow]]\nid = \"c\"\nfrom = \"user:bob\"\nto = \"db1\"\ncall = \"file.get\"\nargs = { path = \"/srv/**\" }\n");
  CHECK(explained(*narrow, request(bob.caller(), db1.asVm(), "file.get", "/etc/passwd"_kj)) ==
        "denied: no rule allows it\n"
        "  allow 'c' (p.toml:2) is for other paths\n"
        "to allow it: add this rule, or a wider one, to the policy\n\n"
        "[[allow]]\nid = \"allow-user-bob-file.get\"\nfrom = \"user:bob\"\nto = \"db1\"\ncall = \"file.get\"\n"
        "args = { path = \"/etc/passwd\" }\n");
}

TEST_CASE("rules between VMs are void, not wrong, while vm-to-vm is disabled") {
  auto policy = hostPolicy(RULES);
  auto web1 = Who::vm("web1"), web2 = Who::vm("web2"), db1 = Who::vm("db1");
  CHECK(explained(*policy, request(web1.caller(), web2.asVm(), "service.http")) ==
        "denied: vm-to-vm is disabled\n"
        "  allow 'peers' (p.toml:37) would allow it, but is void while vm-to-vm is disabled\n"
        "  allow 'also' (p.toml:11) is for other callers\n"
        "  deny 'never-bob' (p.toml:24) is for other callers\n"
        "  3 rules have nothing to do with it\n"
        "to allow it: vm-to-vm is off unless the policy enables it; put this before the first table of a file\n\n"
        "vm-to-vm = \"enabled\"\n");
  auto advice = policy->advise(request(web1.caller(), db1.asVm(), "service.http"));
  CHECK((KJ_ASSERT_NONNULL(advice.toml) ==
         "vm-to-vm = \"enabled\"\n\n[[allow]]\nid = \"allow-web1-service.http\"\nfrom "
         "= \"web1\"\nto = \"db1\"\ncall = \"service.http\"\n"));
  auto disabled = hostPolicy("vm-to-vm = \"disabled\"\n");
  CHECK((disabled->advise(request(web1.caller(), db1.asVm(), "service.http")).text ==
         "write vm-to-vm = \"enabled\" at p.toml:2, and add an [[allow]] for it"));
}

TEST_CASE("a segment that joins the two in other ways is a near miss") {
  auto policy = hostPolicy(
      "vm-to-vm = \"enabled\"\n[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = \"h\"\nisolated = [\"a\", "
      "\"b\"]\n");
  auto a = Who::vm("a"), b = Who::vm("b"), h = Who::vm("h"), c = Who::vm("c");
  auto standing = [&](const Who& from, const Who& to, kj::StringPtr call) {
    auto out = explain(*policy, request(from.caller(), to.asVm(), call));
    return out.notes.empty() ? "unrelated" : std::string(describe(out.notes[0].standing).cStr());
  };
  CHECK(standing(a, h, "service.x") == "decides");
  CHECK(standing(a, b, "service.x") == "is for other targets");
  CHECK(standing(c, h, "service.x") == "is for other callers");
  CHECK(standing(a, h, "service.y") == "is for other calls");
  CHECK(standing(c, b, "service.y") == "unrelated");
}

TEST_CASE("advice tells what no rule can mend") {
  auto policy = hostPolicy("[port.web1]\nblocked = true\n");
  auto alice = Who::user("alice"), web1 = Who::vm("web1"), web2 = Who::vm("web2"), nobody = Who::user("");
  auto advice = [&](const Request& asked) {
    auto out = policy->advise(asked);
    CHECK(out.toml == nullptr);
    return std::string(out.text.cStr());
  };
  CHECK(advice(request(alice.caller(), web1.asVm(), "ping")) == "remove 'blocked = true' of [port.web1] at p.toml:2");
  CHECK(advice(request(alice.caller(), web2.asVm(), "pin")) == "unknown call 'pin'; did you mean 'ping'?");
  CHECK(advice(request(alice.caller(), web2.asVm(), "exec.run")) ==
        "call 'exec.run' is reserved, not available yet; leave it out");
  CHECK(advice(request(alice.caller(), web2.asVm(), "power.*")) ==
        "ask for one call; 'power.*' is a pattern of several");
  CHECK(advice(request(web2.caller(), web2.asVm(), "ping")).find("no policy can allow this") == 0);
  CHECK(advice(request(alice.caller(), web2.asVm(), "file.get", "/a/"_kj)).find("ask for an absolute path") == 0);
  CHECK(advice(request(nobody.caller(), web2.asVm(), "ping")).find("add a rule; this caller") == 0);
}

TEST_CASE("advice for a path with characters of patterns, and for names with quotes, still allows the request") {
  auto nothing = Policy::denyAll(Side::HOST);
  auto guest = Policy::denyAll(Side::GUEST);
  auto odd = Who::user("EXAMPLE\\a \"b\""), web1 = Who::vm("web1"), self = Who::vm("");
  for (auto path : {"/a[1]"_kj, "/*"_kj, "/**"_kj, "/a\nb"_kj, "/\\"_kj, "/a\"b"_kj, "/"_kj, "/{x}/?"_kj}) {
    auto asked = request(odd.caller(), web1.asVm(), "file.get", path);
    auto toml = std::string(KJ_ASSERT_NONNULL(nothing->advise(asked).toml).cStr());
    INFO(toml);
    CHECK(hostPolicy(toml)->decide(asked).isAllowed());
    asked = request(odd.caller(), self.asVm(), "file.get", path);
    toml = KJ_ASSERT_NONNULL(guest->advise(asked).toml).cStr();
    CHECK(guestPolicy(toml)->decide(asked).isAllowed());
  }
  auto fromVm = request(web1.caller(), self.asVm(), "service.http");
  CHECK(guestPolicy(KJ_ASSERT_NONNULL(guest->advise(fromVm).toml).cStr())->decide(fromVm).isAllowed());
  auto toHost = request(web1.caller(), TheHost(), "service.http");
  CHECK(hostPolicy(KJ_ASSERT_NONNULL(nothing->advise(toHost).toml).cStr())->decide(toHost).isAllowed());
}

}  // namespace
}  // namespace postern::policy
