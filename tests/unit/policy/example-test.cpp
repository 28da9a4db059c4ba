// The policy that explains the grammar, on both ends.
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

constexpr auto HOST = R"(policy = 1
vm-to-vm = "disabled"

groups = { web = ["web1", "web2"], ops = ["user:alice", "group:vmadmins"] }

test = [
  { want = "allow ops-power", from = "user:alice", to = "web1", call = "power.shutdown" },
  { want = "deny", from = "web1", to = "web2", call = "service.http" },
]

[[allow]]
id = "ops-power"
from = "@ops"
to = "@web"
call = ["power.*", "info.*"]

[[allow]]
id = "site-content"
from = "group:deploy"
to = "@web"
call = ["file.put", "file.stat"]
args = { path = "/srv/www/**" }
limit = { rate = "200 MiB/s", burst = "16 MiB", open = 4 }
run-as = "www-data"

[[segment]]
id = "build"
call = ["service.artifact"]
promiscuous = ["head"]
community = { web = ["web1", "web2"] }
isolated = ["run1", "run2"]
limit = { rate = "50 MiB/s", burst = "8 MiB" }

[port.run2]
blocked = true
)";

constexpr auto GUEST = R"(policy = 1

[[allow]]
id = "operations"
call = ["power.*", "info.*"]

[[allow]]
id = "site-content"
call = ["file.*"]
args = { path = "/srv/www/**" }
run-as = "www-data"
)";

TEST_CASE("the host's example gives its verdicts") {
  auto policy = loadedFiles({{"example.toml", HOST}});
  auto alice = Who::user("alice"), bob = Who::user("bob", {"users", "vmadmins"}), eve = Who::user("eve");
  auto ci = Who::user("ci", {"deploy"});
  auto web1 = Who::vm("web1"), db1 = Who::vm("db1"), run2 = Who::vm("run2");
  CHECK(verdict(*policy, alice, web1, "power.shutdown") == "rule ops-power");
  CHECK(verdict(*policy, bob, web1, "info.os") == "rule ops-power");
  CHECK(verdict(*policy, eve, web1, "info.os") == "no-rule");
  CHECK(verdict(*policy, alice, db1, "info.os") == "no-rule");
  CHECK(verdict(*policy, alice, web1, "ping") == "no-rule");
  CHECK(verdict(*policy, ci, web1, "file.put", "/srv/www/a/b.html"_kj) == "rule site-content");
  CHECK(verdict(*policy, ci, web1, "file.put", "/srv/www"_kj) == "no-rule");
  CHECK(verdict(*policy, ci, web1, "file.put", "/srv/www/../../etc/passwd"_kj) == "bad-path");
  CHECK(verdict(*policy, ci, web1, "file.get", "/srv/www/a"_kj) == "no-rule");
  CHECK(verdict(*policy, web1, Who::vm("web2"), "service.http") == "vm-to-vm-disabled");
  CHECK(verdict(*policy, Who::vm("head"), run2, "service.artifact") == "blocked-port");

  auto put = policy->decide(request(ci.caller(), web1.asVm(), "file.put", "/srv/www/a"_kj));
  CHECK((KJ_ASSERT_NONNULL(put.runAs()) == "www-data"));
  CHECK((KJ_ASSERT_NONNULL(put.limits().rate) == uint64_t(200) << 20));
  CHECK((KJ_ASSERT_NONNULL(put.limits().burst) == uint64_t(16) << 20));
  CHECK((KJ_ASSERT_NONNULL(put.limits().open) == 4));
  CHECK((put.toString() == "allowed by rule 'site-content' (example.toml:17)"));
}

TEST_CASE("the guest's example allows callers whom the host vouches for, and no VM") {
  auto policy = loadedFiles({{"agent.toml", GUEST}}, Side::GUEST);
  auto alice = Who::user("alice"), guest = Who::vm("");
  CHECK(verdict(*policy, alice, guest, "power.restart") == "rule operations");
  CHECK(verdict(*policy, alice, guest, "ping") == "no-rule");
  CHECK(verdict(*policy, alice, guest, "file.remove", "/srv/www/x"_kj) == "rule site-content");
  CHECK(verdict(*policy, alice, guest, "file.remove", "/etc/passwd"_kj) == "no-rule");
  CHECK(verdict(*policy, Who::vm("web1"), guest, "service.http") == "no-rule");
}

TEST_CASE("the segment of the example joins whom it says once VMs may talk at all") {
  std::string text = HOST;
  text.replace(text.find("disabled"), 8, "enabled");
  auto policy = loadedFiles({{"example.toml", text}});
  auto head = Who::vm("head"), web1 = Who::vm("web1"), web2 = Who::vm("web2"), run1 = Who::vm("run1");
  auto call = "service.artifact"_kj;
  CHECK(verdict(*policy, head, run1, call) == "segment build");
  CHECK(verdict(*policy, run1, head, call) == "segment build");
  CHECK(verdict(*policy, web1, web2, call) == "segment build");
  CHECK(verdict(*policy, web1, head, call) == "segment build");
  CHECK(verdict(*policy, run1, web1, call) == "no-rule");
  CHECK(verdict(*policy, web1, run1, call) == "no-rule");
  CHECK(verdict(*policy, run1, Who::vm("run2"), call) == "blocked-port");
  CHECK(verdict(*policy, web1, web2, "service.http") == "no-rule");
}

// T48
TEST_CASE("no rules allow nothing, on either side") {
  for (auto side : {Side::HOST, Side::GUEST}) {
    auto nothing = Policy::denyAll(side);
    for (auto call : {"ping"_kj, "status.read"_kj, "info.os"_kj, "power.shutdown"_kj, "service.http"_kj}) {
      CHECK(verdict(*nothing, Who::user("root"), Who::vm("web1"), call) == "no-rule");
    }
    CHECK((nothing->hash() == loadedFiles({}, side)->hash()));
  }
}

}  // namespace
}  // namespace postern::policy
