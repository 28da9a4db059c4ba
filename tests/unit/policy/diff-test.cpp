// What changes between two policies, and when two policies are one: diff and hash.
#include "protocol/policy/diff.h"

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

constexpr auto OLD = R"(
groups = { ops = ["user:a", "user:b"], gone = "x" }
[[allow]]
id = "keep"
from = "@ops"
to = ["web1", "web2"]
call = ["ping", "info.*"]
[[allow]]
id = "change"
from = "user:c"
to = "any"
call = "file.get"
args = { path = ["/a", "/b"] }
limit = { rate = "1 MiB/s", open = 4 }
[[allow]]
id = "remove"
from = "user:d"
to = "any"
call = "ping"
[port.web2]
blocked = true
)";

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

std::string changesBetween(const std::string& before, const std::string& after) {
  std::string out;
  for (auto& change : changes(*hostPolicy(before), *hostPolicy(after)))
    out += std::string(change.toString().cStr()) + "\n";
  return out;
}

TEST_CASE("changes are told by name") {
  CHECK(changesBetween(OLD, OLD) == "");
  auto after = replaced(OLD, "open = 4", "open = 5");
  after = replaced(after, "id = \"remove\"", "id = \"added\"");
  after = replaced(after, "ops = [\"user:a\", ", "ops = [");
  after = replaced(after, ", gone = \"x\"", ", new = \"x\"");
  after = replaced(after, "[port.web2]\nblocked = true", "[port.web1]");
  CHECK(changesBetween(OLD, "vm-to-vm = \"enabled\"\n" + after) ==
        "rule 'added' added\nrule 'change' changed\nrule 'remove' removed\n"
        "group 'gone' removed\ngroup 'new' added\ngroup 'ops' changed\n"
        "port of 'web1' added\nport of 'web2' removed\nvm-to-vm changed\n");
}

TEST_CASE("order, files, comments and spacing are no change, and neither is vm-to-vm written out as it is") {
  auto hash = hostPolicy(OLD)->hash();
  auto other = R"(
    # reordered
    vm-to-vm = "disabled"
    [port]
    web2.blocked = true
    [[allow]]
    call = "ping"
    to = ["any", "any"]
    from = ["user:d"]
    id = "remove"
    [[allow]]
    limit.open = 4
    limit.rate = "1024 KiB/s"
    args.path = ["/b", "/a"]
    id = "change"
    from = "user:c"
    to = "any"
    call = ["file.get"]
  )";
  auto split =
      loadedFiles({{"z", policyText(other)},
                   {"a", policyText("[[allow]]\nid='keep'\nto=['web2','web1']\ncall=['info.*','ping']\nfrom='@ops'\n")},
                   {"g", policyText("[groups]\ngone = [ 'x' ]\nops = ['user:b', 'user:a']")}});
  CHECK((split->hash() == hash));
  CHECK(changes(*split, *hostPolicy(OLD)).empty());
}

TEST_CASE("every word that changes what a policy says changes its hash") {
  auto hash = hostPolicy(OLD)->hash();
  CHECK((toHex(hash).size() == 64));
  const char* edits[][2] = {{"\"user:a\"", "\"group:a\""},
                            {"gone = \"x\"", "gone = \"y\""},
                            {"gone =", "went ="},
                            {"id = \"keep\"", "id = \"k\""},
                            {"\"web1\"", "\"tag:web1\""},
                            {"\"info.*\"", "\"power.*\""},
                            {"\"/a\"", "\"/c\""},
                            {"1 MiB/s", "2 MiB/s"},
                            {"open = 4", "open = 5"},
                            {", open = 4", ""},
                            {"open = 4", "bytes = \"4 B\""},
                            {"to = \"any\"", "to = \"tag:any\""},
                            {"port.web2", "port.web1"},
                            {"blocked = true", ""},
                            {"[\"/a\", \"/b\"]", "\"/a\""}};
  for (auto& edit : edits) {
    INFO(edit[0]);
    CHECK((hostPolicy(replaced(OLD, edit[0], edit[1]))->hash() != hash));
  }
  for (auto more : {"run-as = \"x\"\n", "expires = 2030-01-01T00:00:00Z\n"}) {
    CHECK((hostPolicy(replaced(OLD, "[port", more + std::string("[port")))->hash() != hash));
  }
  CHECK((hostPolicy(std::string("vm-to-vm = \"enabled\"\n") + OLD)->hash() != hash));
  CHECK((Policy::denyAll(Side::HOST)->hash() != Policy::denyAll(Side::GUEST)->hash()));
  // The form of a list says where each text ends: one name is not two.
  auto withGroup = [](const std::string& members) { return hostPolicy("[groups]\ng = [" + members + "]\n")->hash(); };
  CHECK((withGroup("\"a\", \"b\"") != withGroup("\"a.b\"")));
  CHECK((withGroup("\"a1\", \"b\"") != withGroup("\"a\", \"1b\"")));
}

TEST_CASE("a policy's hash does not depend on the version that computed it") {
  CHECK(std::string(toHex(Policy::denyAll(Side::HOST)->hash()).cStr()) ==
        "ae80a879a75397681e78b7d4ad748710456e19f4f7b0e1ba75b3c901a10c4d18");
  CHECK(std::string(toHex(hostPolicy(OLD)->hash()).cStr()) ==
        "ce17b6792b856538b8d346d67ccdd8987771ef84a6fd4eb5718dbfd83ee6d6be");
}

TEST_CASE("questions show whose verdict a change turns") {
  auto before = hostPolicy(OLD);
  auto after = hostPolicy(replaced(replaced(OLD, "\"info.*\"", "\"power.*\""), "open = 4", "open = 5"));
  auto a = Who::user("a"), c = Who::user("c"), web1 = Who::vm("web1"), web2 = Who::vm("web2");
  Caller callers[] = {a.caller(), c.caller(), web1.caller()};
  Target targets[] = {web1.asVm(), web2.asVm(), TheHost()};
  Questions::Call calls[] = {
      {"ping", nullptr}, {"info.os", nullptr}, {"power.restart", nullptr}, {"file.get", "/a"_kj}};
  std::string out;
  for (auto& change : verdictChanges(*before, *after, {callers, targets, calls, at(NOW)})) {
    out += std::to_string(change.caller) + std::to_string(change.target) + std::to_string(change.call) + " " +
           word(change.before.reason).cStr() + " " + word(change.after.reason).cStr() +
           (change.turned() ? " turned\n" : "\n");
  }
  // web2's port is blocked; the rule that decides about ping and about file.get has changed without turning them.
  CHECK(out == "000 rule rule\n001 rule no-rule turned\n002 no-rule rule turned\n103 rule rule\n");
  CHECK(verdictChanges(*before, *before, {callers, targets, calls, at(NOW)}).empty());
}

}  // namespace
}  // namespace postern::policy
