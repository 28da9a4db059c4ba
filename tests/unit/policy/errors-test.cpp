// Each kind of error, with its file and line and what to write instead. A policy with an error is no policy.
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

// The rest of a rule that is in order.
constexpr auto RULE = "[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\n";

struct Case {
  const char* rules;  // from line 2 on
  const char* line;   // "p.toml:4: "
  const char* says;
};

void check(const Case& one, Side side) {
  auto errors = errorsOf(policyText(one.rules), side);
  INFO(one.rules);
  INFO(errors);
  auto begin = errors.find(one.line);
  REQUIRE(begin != std::string::npos);
  CHECK(errors.find(one.says, begin) != std::string::npos);
}

TEST_CASE("an error of the host's policy has file, line and advice") {
  for (
      auto& one : std::initializer_list<Case>{
          // Keys.
          {"vm_to_vm = \"enabled\"", "p.toml:2: ", "unknown key 'vm_to_vm' in a policy file; did you mean 'vm-to-vm'?"},
          {"zzz = 1", "p.toml:2: ", "there are policy, groups, allow, deny, test, vm-to-vm, segment, port"},
          {"[[allow]]\nid = \"r\"\nform = \"user:a\"\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:4: ", "unknown key 'form' in [[allow]]; did you mean 'from'?"},
          {"[[alow]]\nid = \"r\"", "p.toml:2: ", "did you mean 'allow'?"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"file.get\"\nargs = { pth = \"/a\" }",
           "p.toml:7: ", "unknown key 'pth' in args; did you mean 'path'?"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nlimit = { rat = \"1 B/s\" }",
           "p.toml:7: ", "unknown key 'rat' in limit; did you mean 'rate'?"},
          {"[port.web1]\nblock = true", "p.toml:3: ", "did you mean 'blocked'?"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscous = [\"a\"]",
           "p.toml:5: ", "did you mean 'promiscuous'?"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\nfrom = \"a\"",
           "p.toml:5: ", "write promiscuous, community or isolated"},
          {"test = [\n { want = \"deny\", from = \"a\", to = \"b\", cal = \"ping\" } ]",
           "p.toml:3: ", "did you mean 'call'?"},
          {"[[deny]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\ntest = []",
           "p.toml:7: ", "'test' belongs to the file and not to this rule; put it before the first [[...]]"},
          // Types.
          {"vm-to-vm = true", "p.toml:2: ", "'vm-to-vm' in a policy file is true or false; write a text in quotes"},
          {"vm-to-vm = \"on\"", "p.toml:2: ", "write \"enabled\" or \"disabled\""},
          {"groups = [\"a\"]", "p.toml:2: ", "is a list; write a table"},
          {"groups = { a = 1 }", "p.toml:2: ", "is a number; write a text or a list of texts"},
          {"allow = 3", "p.toml:2: ", "is a number; write [[allow]]"},
          {"[allow]\nid = \"r\"", "p.toml:2: ", "is a table; write [[allow]]"},
          {"allow = [ 3 ]", "p.toml:2: ", "write tables"},
          {"[[allow]]\nid = 7\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:3: ", "'id' in [[allow]] is a number"},
          {"[[allow]]\nid = \"r\"\nfrom = [ \"user:a\", 1.5 ]\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:4: ", "is a number with a fraction; write texts in quotes"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nexpires = \"tomorrow\"",
           "p.toml:7: ", "such as 2027-01-31T18:00:00Z"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nexpires = 2027-01-31T18:00:00",
           "p.toml:7: ", "is a date and time without its zone"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nexpires = 2027-01-31",
           "p.toml:7: ", "is a date or a time alone"},
          {"[port.web1]\nblocked = 1", "p.toml:3: ", "write true or false"},
          {"port = { web1 = true }", "p.toml:2: ", "write a table"},
          // What is missing.
          {"[[allow]]\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"", "p.toml:2: ", "a rule without id"},
          {"[[allow]]\nid = \"r\"\nto = \"web1\"\ncall = \"ping\"", "p.toml:2: ", "a rule without from"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\ncall = \"ping\"", "p.toml:2: ", "a rule without to"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"", "p.toml:2: ", "a rule without call"},
          {"[[allow]]\nid = \"r\"\nfrom = []\nto = \"web1\"\ncall = \"ping\"", "p.toml:4: ", "'from' is an empty list"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = []\ncall = \"ping\"", "p.toml:5: ", "'to' is an empty list"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = []",
           "p.toml:6: ", "'call' is an empty list"},
          {"test = [ { from = \"a\", to = \"b\", call = \"ping\" } ]", "p.toml:2: ", "a test without want"},
          {"test = [ { want = \"deny\", to = \"b\", call = \"ping\" } ]", "p.toml:2: ", "a test without from"},
          {"test = [ { want = \"deny\", from = \"a\", call = \"ping\" } ]", "p.toml:2: ", "a test without to"},
          {"test = [ { want = \"deny\", from = \"a\", to = \"b\" } ]", "p.toml:2: ", "a test without call"},
          // Names.
          {"[[allow]]\nid = \"a b\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"", "p.toml:3: ", "bad id 'a b'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"usr:a\"\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:4: ", "did you mean 'user'?"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user: a\"\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:4: ", "bad name in 'user: a'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"we b\"\ncall = \"ping\"",
           "p.toml:5: ", "bad VM name 'we b'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"w\\u0007\"\ncall = \"ping\"",
           "p.toml:5: ", "bad VM name 'w?'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"\"\ncall = \"ping\"", "p.toml:5: ", "bad VM name ''"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"tag:\"\ncall = \"ping\"",
           "p.toml:5: ", "bad tag in 'tag:'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"user:b\"\ncall = \"ping\"",
           "p.toml:5: ", "'user:b' cannot stand here"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"@\"\ncall = \"ping\"", "p.toml:5: ", "bad group name '@'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"@opps\"\nto = \"web1\"\ncall = \"ping\"\n[groups]\nops = \"user:a\"",
           "p.toml:4: ", "unknown group '@opps'; did you mean 'ops'?"},
          {"[[allow]]\nid = \"r\"\nfrom = \"@ops\"\nto = \"web1\"\ncall = \"ping\"",
           "p.toml:4: ", "the policy has no groups"},
          {"[groups]\na = \"@b\"", "p.toml:3: ", "unknown group '@b'"},
          {"[groups]\n\"a b\" = \"x\"", "p.toml:3: ", "bad group name 'a b'"},
          {"[groups]\na = [\"any\"]", "p.toml:3: ", "'any' cannot stand here"},
          {"[groups]\na = [\"@b\"]\nb = [\"@c\"]\nc = [\"x\", \"@a\"]",
           "p.toml:5: ", "group 'c' holds itself, by way of '@a'"},
          {"[groups]\na = [\"@a\"]", "p.toml:3: ", "group 'a' holds itself"},
          {"[port.\"a b\"]\nblocked = true", "p.toml:2: ", "is no VM's name"},
          {"[port.any]\nblocked = true", "p.toml:2: ", "is no VM's name"},
          // Calls.
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"power.shutdwn\"",
           "p.toml:6: ", "unknown call 'power.shutdwn'; did you mean 'power.shutdown'?"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"power.explode\"",
           "p.toml:6: ", "there are power.shutdown, power.restart, power.suspend"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"power\"",
           "p.toml:6: ", "write 'power.*'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"service\"",
           "p.toml:6: ", "write 'service.NAME'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"service.a.b\"",
           "p.toml:6: ", "bad service name"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping.*\"", "p.toml:6: ", "write 'ping'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"quite.another\"",
           "p.toml:6: ", "write one of status.read"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"p*\"", "p.toml:6: ", "unknown call 'p*'"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"exec.run\"",
           "p.toml:6: ", "reserved, not available yet"},
          {"[[deny]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = [\"time.sync\"]",
           "p.toml:6: ", "reserved, not available yet"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"fs.freeze\"",
           "p.toml:6: ", "reserved, not available yet"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"share.mount\"",
           "p.toml:6: ", "reserved, not available yet"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"share.*\"",
           "p.toml:6: ", "reserved, not available yet"},
          // Arguments.
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = [\"file.get\", \"ping\"]\nargs = { path = "
           "\"/a\" }",
           "p.toml:7: ", "'args' is for file.* only, and this rule is about 'ping' as well"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"*\"\nargs = { path = \"/a\" }",
           "p.toml:7: ", "'args' is for file.* only"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"file.get\"\nargs = {}",
           "p.toml:7: ", "'args' is empty"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"file.get\"\nargs = { path = [] }",
           "p.toml:7: ", "'path' is an empty list"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"file.get\"\nargs = { path = \"srv\" }",
           "p.toml:7: ", "is relative"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"file.get\"\nargs = { path = \"/a/../b\" "
           "}",
           "p.toml:7: ", "has '..'"},
          // Limits and the rest of a rule.
          {"[port.web1]\nrate = \"200 mib/s\"", "p.toml:3: ", "unit 'mib' is unknown; did you mean 'MiB/s'?"},
          {"[port.web1]\nrate = \"200 MiB\"", "p.toml:3: ", "lacks '/s' at its end"},
          {"[port.web1]\nrate = \"fast\"", "p.toml:3: ", "'fast' is no number"},
          {"[port.web1]\nrate = \"1.5 MiB/s\"", "p.toml:3: ", "is a fraction"},
          {"[port.web1]\nrate = \"200/s\"", "p.toml:3: ", "lacks a unit"},
          {"[port.web1]\nrate = \"1 B/s\"\nburst = \"0 B\"", "p.toml:4: ", "is nothing at all"},
          {"[port.web1]\nrate = \"0 B/s\"\npeak = \"0 B/s\"", "p.toml:4: ", "is nothing at all"},
          {"[port.web1]\nrate = \"9999999999 TiB/s\"", "p.toml:3: ", "is too large"},
          {"[port.web1]\nrate = \"99999999999999999999 B/s\"", "p.toml:3: ", "is no number"},
          {"[port.web1]\nrate = 200", "p.toml:3: ", "write a text in quotes"},
          {"[port.web1]\nbytes = \"16 parsec\"", "p.toml:3: ", "unit 'parsec' is unknown (B, kB"},
          {"[port.web1]\ncalls = \"100\"", "p.toml:3: ", "write \"100/s\""},
          {"[port.web1]\ncalls = \"0/d\"", "p.toml:3: ", "write \"100/s\""},
          {"[port.web1]\nopen = -1", "p.toml:3: ", "write at least 0"},
          {"[port.web1]\nburst = \"1 MiB\"", "p.toml:3: ", "means nothing without 'rate'"},
          {"[port.web1]\nrate = \"2 MiB/s\"\npeak = \"1 MiB/s\"", "p.toml:4: ", "'peak' is below 'rate'"},
          {"[[deny]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nlimit = { open = 1 }",
           "p.toml:7: ", "'limit' has no meaning in a [[deny]]"},
          {"[[deny]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nrun-as = \"x\"",
           "p.toml:7: ", "'run-as' has no meaning in a [[deny]]"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nrun-as = \"a/b\"",
           "p.toml:7: ", "is no user's name"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\nmirror = { to = "
           "\"unix:/a\", copy = \"full\" }",
           "p.toml:7: ", "'mirror' is for service.* only"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"service.x\"\nmirror = { to = \"unix:/a\" "
           "}",
           "p.toml:7: ", "'mirror' needs both"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"service.x\"\nmirror = { to = "
           "\"unix:/a\", copy = \"half\" }",
           "p.toml:7: ", "write \"meta\" or \"full\""},
          // Rules that can never apply.
          {"[[allow]]\nid = \"r\"\nfrom = \"web1\"\nto = \"web2\"\ncall = \"power.*\"",
           "p.toml:2: ", "rule 'r' can never apply: a VM can call service.* alone"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"host\"\ncall = \"power.*\"",
           "p.toml:2: ", "rule 'r' can never apply"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"admin.enroll\"",
           "p.toml:2: ", "to = \"host\""},
          {"[[allow]]\nid = \"r\"\nfrom = [\"user:a\", \"web1\"]\nto = \"web2\"\ncall = \"ping\"",
           "p.toml:4: ", "from 'web1' can never apply in this rule"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = [\"web1\", \"host\"]\ncall = \"ping\"",
           "p.toml:5: ", "to 'host' can never apply in this rule"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = [\"ping\", \"admin.audit\"]",
           "p.toml:2: ", "call 'admin.audit' can never apply in this rule"},
          {"[[deny]]\nid = \"r\"\nfrom = \"any\"\nto = \"any\"\ncall = \"file.*\"", "p.toml:2: ", "can never apply"},
          {"[[allow]]\nid = \"r\"\nfrom = \"@none\"\nto = \"any\"\ncall = \"ping\"\n[groups]\nnone = []",
           "p.toml:2: ", "can never apply"},
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = [\"@ops\", \"web1\"]\ncall = \"ping\"\n[groups]\nops = "
           "[\"user:a\"]",
           "p.toml:5: ", "it has no VM"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\nisolated = [\"a\", \"b\"]", "p.toml:2: ", "so nobody talks"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = \"a\"",
           "p.toml:2: ", "no member has another one to talk with"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = \"a\"\nisolated = \"@g\"\n[groups]\ng = "
           "\"a\"",
           "p.toml:2: ", "no member has another one to talk with"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\ncommunity = { x = \"a\", y = \"b\" }\nisolated = \"c\"",
           "p.toml:2: ", "no member has another one to talk with"},
          {"[[allow]]\nid = \"r\"\nfrom = \"web1\"\nto = \"web1\"\ncall = \"service.x\"",
           "p.toml:2: ", "rule 'r' can never apply: it is from a VM to itself"},
          {"[[deny]]\nid = \"r\"\nfrom = \"@a\"\nto = [\"web1\", \"@b\"]\ncall = \"service.*\"\n[groups]\na = "
           "\"@b\"\nb = "
           "\"web1\"",
           "p.toml:2: ", "rule 'r' can never apply: it is from a VM to itself"},
          {"[[segment]]\nid = \"s\"\ncall = \"ping\"\npromiscuous = [\"a\"]",
           "p.toml:4: ", "a segment is for service.* only"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = [\"a\"]\nisolated = [\"a\"]",
           "p.toml:6: ", "'a' is in this segment twice; it stands at p.toml:5 already"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = [\"user:a\"]",
           "p.toml:5: ", "cannot stand here"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\npromiscuous = [\"@g\"]\n[groups]\ng = [\"user:a\"]",
           "p.toml:5: ", "'@g' has no VM"},
          {"[[segment]]\nid = \"s\"\ncall = \"service.x\"\ncommunity = { \"a b\" = [\"a\"] }",
           "p.toml:5: ", "bad community name"},
          // Twice.
          {"[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\n[[deny]]\nid = \"r\"\nfrom = "
           "\"user:a\"\nto = "
           "\"web1\"\ncall = \"ping\"",
           "p.toml:7: ", "rule id 'r' is used twice; it stands at p.toml:2 already"},
          {"[port.a]\n[port.a]\n", "p.toml:3: ", "not TOML"},
          // Tests.
          {"test = [ { want = \"maybe\", from = \"a\", to = \"b\", call = \"ping\" } ]",
           "p.toml:2: ", "want = 'maybe'"},
          {"test = [ { want = \"allow \", from = \"a\", to = \"b\", call = \"ping\" } ]",
           "p.toml:2: ", "want = 'allow '"},
          {"test = [ { want = \"deny\", from = \"@a\", to = \"b\", call = \"ping\" } ]",
           "p.toml:2: ", "'@a' cannot stand here"},
          {"test = [ { want = \"deny\", from = [\"user:a\", \"user:b\"], to = \"b\", call = \"ping\" } ]",
           "p.toml:2: ", "is one party"},
          {"test = [ { want = \"deny\", from = [\"user:a\", \"web1\"], to = \"b\", call = \"ping\" } ]",
           "p.toml:2: ", "is one party"},
          {"test = [ { want = \"deny\", from = [], to = \"b\", call = \"ping\" } ]", "p.toml:2: ", "names nobody"},
          {"test = [ { want = \"deny\", from = \"a\", to = \"b\", call = \"power.*\" } ]",
           "p.toml:2: ", "is a pattern"},
          {"test = [ { want = \"deny\", from = \"a\", to = \"b\", call = \"exec.run\" } ]", "p.toml:2: ", "reserved"},
          {"test = [\n  { want = \"allow\", from = \"user:a\", to = \"b\", call = \"ping\" },\n]",
           "p.toml:3: ", "test failed: user:a, ping of b: wanted allow, was denied: no rule allows it"},
      }) {
    check(one, Side::HOST);
  }
}

TEST_CASE("a failing test says what the verdict was and why") {
  std::string rules =
      std::string(RULE) + "[[test]]\nwant = \"deny\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\n";
  auto errors = errorsOf(policyText(rules));
  CHECK(errors == "p.toml:7: test failed: user:a, ping of web1: wanted deny, was allowed by rule 'r' (p.toml:2)\n");
  // The right verdict by the wrong rule fails as well.
  rules = std::string(RULE) + "[[test]]\nwant = \"allow other\"\nfrom = \"user:a\"\nto = \"web1\"\ncall = \"ping\"\n";
  CHECK(errorsOf(policyText(rules)) ==
        "p.toml:7: test failed: user:a, ping of web1: wanted allow by rule 'other', was allowed by rule 'r' "
        "(p.toml:2)\n");
}

TEST_CASE("an error of the guest's policy has file, line and advice") {
  for (auto& one : std::initializer_list<Case>{
           {"[[allow]]\nid = \"r\"\nto = \"web1\"\ncall = \"ping\"",
            "agent.toml:4: ", "every rule of agent.toml is about this guest"},
           {"[[allow]]\nid = \"r\"\ncall = \"admin.enroll\"", "agent.toml:2: ", "rule 'r' can never apply"},
           {"[[allow]]\nid = \"r\"\nfrom = \"web1\"\ncall = \"power.*\"", "agent.toml:2: ", "VMs service.* alone"},
           {"[[allow]]\nid = \"r\"\ncall = \"service.x\"\nmirror = { to = \"a\", copy = \"all\" }",
            "agent.toml:5: ", "'mirror' is the host's"},
           {"vm-to-vm = \"enabled\"", "agent.toml:2: ", "'vm-to-vm' is the host's to say"},
           {"[[segment]]\nid = \"s\"", "agent.toml:2: ", "'segment' is the host's to say"},
           {"[port.a]\nblocked = true", "agent.toml:2: ", "'port' is the host's to say"},
           {"colour = \"red\"", "agent.toml:2: ", "unknown key 'colour' in agent.toml"},
           {"test = [ { want = \"deny\", from = \"host\", to = \"web1\", call = \"ping\" } ]",
            "agent.toml:2: ", "every test of agent.toml"},
           {"test = [ { want = \"allow\", from = \"host\", call = \"ping\" } ]",
            "agent.toml:2: ", "ping of this guest: wanted allow"},
       }) {
    check(one, Side::GUEST);
  }
}

TEST_CASE("keys of the agent's own are left to the agent") {
  kj::StringPtr own[] = {"connect"_kj, "log"_kj};
  std::string text = "policy = 1\nconnect = \"auto\"\n[log]\nlevel = [ 1, 2 ]\n";
  CHECK(loadFiles({{"agent.toml", text}}, Side::GUEST, own).is<Loaded>());
  auto result = loadFiles({{"agent.toml", "policy = 1\nconect = \"auto\"\n"}}, Side::GUEST, own);
  CHECK(linesOf(result.get<kj::Array<Problem>>()) ==
        "agent.toml:2: unknown key 'conect' in agent.toml; did you mean 'connect'?\n");
}

TEST_CASE("every file has its version") {
  CHECK(errorsOf("") == "p.toml:1: no version; begin the file with 'policy = 1'\n");
  CHECK(errorsOf("policy = 2") == "p.toml:1: policy = 2 is of another Postern; this one reads 'policy = 1'\n");
  CHECK(errorsOf("policy = \"1\"") == "p.toml:1: 'policy' in a policy file is a text; write a whole number\n");
  auto result = loadFiles({{"a.toml", "policy = 1"}, {"b.toml", RULE}}, Side::HOST);
  CHECK(linesOf(result.get<kj::Array<Problem>>()) == "b.toml:1: no version; begin the file with 'policy = 1'\n");
}

TEST_CASE("what stands in two files is found in both") {
  auto result = loadFiles(
      {{"a.toml", policyText(std::string("vm-to-vm = \"enabled\"\ngroups = { g = \"x\" }\n") + RULE + "[port.w]\n")},
       {"b.toml", policyText(std::string("vm-to-vm = \"enabled\"\ngroups = { g = \"x\" }\n") + RULE + "[port.w]\n")}},
      Side::HOST);
  CHECK(linesOf(result.get<kj::Array<Problem>>()) ==
        "b.toml:2: vm-to-vm is written twice; it stands at a.toml:2 already\n"
        "b.toml:3: group name 'g' is used twice; it stands at a.toml:3 already\n"
        "b.toml:4: rule id 'r' is used twice; it stands at a.toml:4 already\n"
        "b.toml:9: port 'w' is used twice; it stands at a.toml:9 already\n");
}

TEST_CASE("a rule that has expired is a warning, and does not apply") {
  auto result =
      loadFiles({{"p.toml", policyText(std::string(RULE) + "expires = 2027-01-15T08:59:59+01:00\n")}}, Side::HOST);
  REQUIRE(result.is<Loaded>());
  CHECK(linesOf(result.get<Loaded>().warnings) ==
        "p.toml:2: rule 'r' has expired (2027-01-15T07:59:59Z) and does not apply; remove or renew it\n");
  CHECK(verdict(*result.get<Loaded>().policy, Who::user("a"), Who::vm("web1"), "ping") == "expired r");
}

TEST_CASE("errors are told up to a bound, sorted by line") {
  std::string rules;
  for (int i = 0; i < 500; ++i) rules += "k" + std::to_string(i) + " = 1\n";
  auto result = loadFiles({{"p.toml", policyText(rules)}}, Side::HOST);
  auto& errors = result.get<kj::Array<Problem>>();
  CHECK(errors.size() == 100);
  for (size_t i = 1; i < errors.size(); ++i) CHECK(errors[i - 1].line <= errors[i].line);
}

}  // namespace
}  // namespace postern::policy
