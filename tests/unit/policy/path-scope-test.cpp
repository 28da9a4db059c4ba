// PathScope: the part of a policy that travels to the process that sees the names, and decides there as the policy
// does.
#include "protocol/transfer/path-scope.h"

#include <capnp/message.h>
#include <kj/debug.h>

#include <map>
#include <random>

#include "protocol/policy/bounds.h"
#include "protocol/transfer/limits.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

using transfer::PathScope;

kj::ArrayPtr<const char> bytesOf(const std::string& text) {
  return kj::arrayPtr(text.data(), text.size());
}
std::string textOf(kj::Maybe<kj::String> text) {
  KJ_IF_MAYBE (t, text) return t->cStr();
  return "none";
}

// There and back, as between processes.
kj::OneOf<PathScope, kj::String> parsed(const PathScope& scope) {
  capnp::MallocMessageBuilder message;
  scope.write(message.initRoot<schema::PathScope>());
  return PathScope::parse(message.getRoot<schema::PathScope>().asReader());
}

PathScope scopeOf(const Policy& policy, const Who& caller, kj::StringPtr call,
                  kj::Maybe<kj::StringPtr> path = nullptr) {
  auto vm = Who::vm("v");
  auto parsedAgain = parsed(PathScope::of(policy, request(caller.caller(), vm.asVm(), call, path)));
  if (parsedAgain.is<kj::String>()) FAIL(parsedAgain.get<kj::String>().cStr());
  return kj::mv(parsedAgain.get<PathScope>());
}
PathScope scopeOf(const Policy& policy, kj::Maybe<kj::StringPtr> path = nullptr) {
  return scopeOf(policy, Who::user("a"), "file.put", path);
}

std::string verdictOf(const PathScope& scope, const std::string& path) {
  auto verdict = scope.decide(bytesOf(path));
  return std::string(verdict.allowed ? "allow " : "deny ") + verdict.rule.cStr() +
         (verdict.runAs.size() > 0 ? std::string(" as ") + verdict.runAs.cStr() : "");
}
// The policy's own, in the same words.
std::string verdictOf(const Policy& policy, const Request& request) {
  auto decision = policy.decide(request);
  KJ_IF_MAYBE (user, decision.runAs()) {
    return std::string("allow ") + decision.ruleId().cStr() + " as " + user->cStr();
  }
  if (decision.isAllowed()) return std::string("allow ") + decision.ruleId().cStr();
  return std::string("deny ") + (decision.reason == Reason::DENY_RULE ? decision.ruleId().cStr() : "");
}

// A rule about file calls of user a to v.
std::string rule(const std::string& kind, const std::string& id, const std::string& more = "") {
  return "[[" + kind + "]]\nid = \"" + id + "\"\nfrom = \"user:a\"\nto = \"v\"\ncall = \"file.*\"\n" + more + "\n";
}
std::string paths(const std::string& list) {
  return "args = { path = " + list + " }";
}

template <typename T>
const T& oneOf(std::mt19937& random, const std::vector<T>& list) {
  return list[std::uniform_int_distribution<size_t>(0, list.size() - 1)(random)];
}

std::string randomRule(std::mt19937& random, int number) {
  using Texts = std::vector<std::string>;
  static const Texts CALLERS = {"\"user:a\"", "\"user:b\"", "\"group:g\"", "\"host\"", "\"@ops\""};
  static const Texts TARGETS = {"\"v\"", "\"w\"", "\"tag:t\"", "\"any\""};
  static const Texts CALLS = {"\"file.*\"", "\"file.put\"", "\"file.get\"", "[\"file.stat\", \"file.put\"]"};
  static const Texts GLOBS = {"\"/**\"",    "\"/srv/**\"",   "\"/srv/*\"", "\"/srv/**/c\"", "\"/srv/?\"",
                              "\"/srv/a\"", "\"/**/*.key\"", "\"/\"",      "\"/*/*\"",      "\"/srv/a/**\""};
  bool denies = random() % 3 == 0;
  auto out = std::string(denies ? "[[deny]]" : "[[allow]]") + "\nid = \"r" + std::to_string(number) +
             "\"\nfrom = " + oneOf(random, CALLERS) + "\nto = " + oneOf(random, TARGETS) +
             "\ncall = " + oneOf(random, CALLS) + "\n";
  if (random() % 5 != 0) out += paths("[" + oneOf(random, GLOBS) + ", " + oneOf(random, GLOBS) + "]") + "\n";
  if (!denies && random() % 3 == 0) out += "run-as = \"u" + std::to_string(random() % 3) + "\"\n";
  if (random() % 6 == 0)
    out += random() % 2 == 0 ? "expires = 2020-01-01T00:00:00Z\n" : "expires = 2040-01-01T00:00:00Z\n";
  return out;
}

// T69
TEST_CASE("a scope decides every path as its policy does, for random policies, callers, calls and paths") {
  const std::vector<std::string> PATHS = {
      "/",         "/srv",    "/srv/a",  "/srv/a/b", "/srv/a/b/c", "/srv/c", "/etc/x.key", "/srv/a/.key", "/x",
      "/srv/../x", "/srv//a", "/srv/a/", "srv/a",    "",           "/srv/.", "/..",        "/srv/\xff\n", "/a/b"};
  std::mt19937 random(4711);
  std::map<std::string, size_t> seen;
  for (int round = 0; round < 300; ++round) {
    std::string text = "groups = { ops = [\"user:a\", \"group:h\"] }\n";
    for (int i = 0, count = 1 + int(random() % 9); i < count; ++i) text += randomRule(random, i);
    if (random() % 8 == 0) text += "[port.v]\nblocked = true\n";
    INFO(text);
    auto policy = hostPolicy(text);
    for (auto& caller : {Who::user("a"), Who::user("b", {"g"}), Who::user("c", {"h", "g"}), Who::user("")}) {
      for (auto& vm : {Who::vm("v"), Who::vm("x", {"t"})}) {
        for (auto call : {"file.put"_kj, "file.get"_kj, "file.remove"_kj}) {
          auto again = parsed(PathScope::of(*policy, request(caller.caller(), vm.asVm(), call)));
          auto& scope = again.get<PathScope>();
          bool any = false;
          for (auto& path : PATHS) {
            auto asked = request(caller.caller(), vm.asVm(), call, kj::StringPtr(path.c_str(), path.size()));
            auto expected = verdictOf(*policy, asked);
            INFO(path);
            REQUIRE(verdictOf(scope, path) == expected);
            bool allowed = expected.rfind("allow", 0) == 0;
            any |= allowed;
            CHECK((scope.rootFor(bytesOf(path)) != nullptr) == allowed);
            ++seen[allowed ? "allow" : expected == "deny " ? "none" : "deny"];
          }
          if (any) CHECK(scope.allowsSomething());
        }
      }
    }
  }
  for (auto word : {"allow", "none", "deny"}) CHECK(seen[word] > 1000);
}

// T69
TEST_CASE("a scope is empty, and denies everything, for what is no file call of a host's caller to an open VM") {
  auto policy = hostPolicy("vm-to-vm = \"enabled\"\n" + rule("allow", "r") + "[port.blocked]\nblocked = true\n" +
                           "[[allow]]\nid = \"s\"\nfrom = \"user:a\"\nto = \"blocked\"\ncall = \"*\"\n");
  auto a = Who::user("a"), v = Who::vm("v"), blocked = Who::vm("blocked"), other = Who::user("b");
  auto isEmpty = [&](const Request& request) {
    auto scope = PathScope::of(*policy, request);
    return !scope.allowsSomething() && !scope.decide("/srv"_kj).allowed;
  };
  CHECK_FALSE(isEmpty(request(a.caller(), v.asVm(), "file.get")));
  CHECK(isEmpty(request(other.caller(), v.asVm(), "file.get")));
  CHECK(isEmpty(request(a.caller(), v.asVm(), "ping")));
  CHECK(isEmpty(request(a.caller(), v.asVm(), "file.*")));
  CHECK(isEmpty(request(a.caller(), v.asVm(), "nonsense")));
  CHECK(isEmpty(request(v.caller(), v.asVm(), "file.get")));
  CHECK(isEmpty(request(a.caller(), TheHost(), "file.get")));
  CHECK(isEmpty(request(a.caller(), blocked.asVm(), "file.get")));
  CHECK(isEmpty(request(blocked.caller(), v.asVm(), "file.get")));
}

TEST_CASE("a rule that expires counts until the scope is made, and from then on for as long as the scope lives") {
  auto policy = hostPolicy(rule("allow", "r", "expires = 2027-01-15T08:00:10Z"));  // NOW + 10
  auto a = Who::user("a"), v = Who::vm("v");
  auto asked = request(a.caller(), v.asVm(), "file.get");
  CHECK(PathScope::of(*policy, asked).allowsSomething());
  asked.now = at(NOW + 9) + 999 * kj::MILLISECONDS;
  CHECK(PathScope::of(*policy, asked).allowsSomething());
  asked.now = at(NOW + 10);
  CHECK_FALSE(PathScope::of(*policy, asked).allowsSomething());
}

TEST_CASE("a guest's scope is of the rules that let the host's caller in") {
  auto policy = guestPolicy(
      "[[allow]]\nid = \"all\"\ncall = \"file.get\"\nargs = { path = \"/srv/**\" }\nrun-as = \"www-data\"\n"
      "[[deny]]\nid = \"no\"\nfrom = \"group:g\"\ncall = \"file.*\"\nargs = { path = \"/srv/x/**\" }\n");
  auto scope = [&](const Who& who) { return PathScope::of(*policy, request(who.caller(), Vm(), "file.get")); };
  CHECK(verdictOf(scope(Who::user("a")), "/srv/x/y") == "allow all as www-data");
  CHECK(verdictOf(scope(Who::user("a", {"g"})), "/srv/x/y") == "deny no");
  CHECK(verdictOf(scope(Who::user("a", {"g"})), "/srv/y") == "allow all as www-data");
  CHECK(verdictOf(scope(Who::user("a")), "/srv") == "deny ");
}

TEST_CASE("the root that a process is confined to is the longest folder without a pattern") {
  auto root = [](const std::string& list, const std::string& path) {
    auto policy = hostPolicy(rule("allow", "r", list.empty() ? "" : paths(list)));
    return textOf(scopeOf(*policy).rootFor(bytesOf(path)));
  };
  CHECK(root("\"/srv/www/**\"", "/srv/www/a/b") == "/srv/www");
  CHECK(root("\"/srv/www/*.html\"", "/srv/www/i.html") == "/srv/www");
  CHECK(root("\"/srv/w?w\"", "/srv/www") == "/srv");
  CHECK(root("\"/srv/w*/x/**\"", "/srv/www/x/y") == "/srv");
  CHECK(root("\"/etc/hosts\"", "/etc/hosts") == "/etc");
  CHECK(root("\"/hosts\"", "/hosts") == "/");
  CHECK(root("\"/**\"", "/a") == "/");
  CHECK(root("\"/*\"", "/a") == "/");
  CHECK(root("\"/\"", "/") == "/");
  CHECK(root("", "/a/b") == "/");
  CHECK(root("[\"/srv/www\", \"/srv/www/**\"]", "/srv/www") == "/srv");
  CHECK(root("[\"/srv/**\", \"/srv/www/**\"]", "/srv/www/a") == "/srv/www");
  CHECK(root("[\"/srv/**\", \"/srv/www/**\"]", "/srv/x") == "/srv");
  CHECK(root("\"/srv/www/**\"", "/srv/www") == "none");
  CHECK(root("\"/srv/www/**\"", "/srv/www/../x") == "none");
  // Of the rule that decides, not of another one that matches.
  auto policy = hostPolicy(rule("allow", "b", paths("\"/srv/www/**\"")) + rule("allow", "a", paths("\"/srv/**\"")) +
                           rule("deny", "c", paths("\"/srv/no/**\"")));
  CHECK(textOf(scopeOf(*policy).rootFor("/srv/www/x"_kj)) == "/srv");
  CHECK(textOf(scopeOf(*policy).rootFor("/srv/no/x"_kj)) == "none");
}

TEST_CASE("quotas are those of the rule that allows the path, else the smallest there are") {
  auto policy = hostPolicy(
      rule("allow", "big", "args = { path = \"/big/**\", max-bytes = \"9 GiB\", max-files = 900, special = true }") +
      rule("allow", "deep", "args = { path = \"/deep/**\", max-depth = 7, max-bytes = \"1 GiB\", special = true }") +
      rule("allow", "free", "args = { path = \"/free/**\" }") +
      rule("deny", "none", "args = { path = \"/big/no/**\" }"));
  auto quotas = [](const PathScope& scope) {
    return std::to_string(scope.maxBytes >> 30) + " " + std::to_string(scope.maxFiles) + " " +
           std::to_string(scope.maxDepth) + (scope.special ? " special" : "");
  };
  CHECK(quotas(scopeOf(*policy, "/big/x"_kj)) == "9 900 0 special");
  CHECK(quotas(scopeOf(*policy, "/deep/x"_kj)) == "1 0 7 special");
  CHECK(quotas(scopeOf(*policy, "/free/x"_kj)) == "0 0 0");
  for (auto path : {kj::Maybe<kj::StringPtr>(), kj::Maybe<kj::StringPtr>("/elsewhere"_kj),
                    kj::Maybe<kj::StringPtr>("/big/no/x"_kj), kj::Maybe<kj::StringPtr>("/big/../x"_kj)}) {
    CHECK(quotas(scopeOf(*policy, path)) == "1 900 7");
  }
  auto special = hostPolicy(rule("allow", "a", "args = { special = true }"));
  CHECK(quotas(scopeOf(*special)) == "0 0 0 special");
  CHECK(quotas(scopeOf(*special, Who::user("b"), "file.put")) == "0 0 0");
}

// T69
TEST_CASE("what is over a scope's bounds makes it empty, so that nothing is left out that would deny") {
  std::string text;
  for (size_t i = 0; i < transfer::MAX_SCOPE_RULES; ++i) text += rule("allow", "r" + std::to_string(10000 + i));
  auto full = scopeOf(*hostPolicy(text));
  CHECK(verdictOf(full, "/x") == "allow r10000");
  CHECK_FALSE(scopeOf(*hostPolicy(text + rule("deny", "s", paths("\"/y\"")))).allowsSomething());

  // Globs of 32 KiB a rule.
  std::string list = "[";
  for (size_t i = 0; i < MAX_GLOBS; ++i) list += "\"/" + std::string(MAX_GLOB_BYTES - 1, 'g') + "\", ";
  list += "]";
  std::string halves[2];
  for (size_t i = 0; i < transfer::MAX_SCOPE_BYTES / MAX_GLOBS / MAX_GLOB_BYTES; ++i) {
    halves[i % 2] += rule("allow", "r" + std::to_string(100 + i), paths(list));
  }
  auto both = [&](const std::string& more) {
    return loadedFiles({{"p.toml", policyText(halves[0] + more)}, {"q.toml", policyText(halves[1])}});
  };
  CHECK(scopeOf(*both("")).allowsSomething());
  CHECK_FALSE(scopeOf(*both(rule("allow", "s", paths("\"/y\"")))).allowsSomething());
}

TEST_CASE("a scope that is not as one is written is refused") {
  struct Row {
    const char *id, *glob;
  };
  auto refusal = [](std::vector<Row> rows) {
    capnp::MallocMessageBuilder message;
    auto rules = message.initRoot<schema::PathScope>().initRules(unsigned(rows.size()));
    for (unsigned i = 0; i < rules.size(); ++i) {
      rules[i].setId(rows[i].id);
      if (rows[i].glob != nullptr) rules[i].initPaths(1).set(0, rows[i].glob);
    }
    auto again = PathScope::parse(message.getRoot<schema::PathScope>().asReader());
    return std::string(again.is<PathScope>() ? "" : again.get<kj::String>().cStr());
  };
  CHECK(refusal({{"a", "/x"}, {"b", nullptr}}).empty());
  CHECK(refusal({{"b", nullptr}, {"a", nullptr}}) == "a scope's rules are sorted by id");
  CHECK(refusal({{"a", nullptr}, {"a", nullptr}}) == "a scope's rules are sorted by id");
  CHECK(refusal({{"", nullptr}}) == "a rule's id has no or too many bytes");
  CHECK(refusal({{std::string(200, 'i').c_str(), nullptr}}) == "a rule's id has no or too many bytes");
  CHECK(refusal({{"a", "x/../y"}}).find("is relative") != std::string::npos);
  CHECK(refusal(std::vector<Row>(1025, {"a", nullptr})) == "a scope has at most 1024 rules");
}

}  // namespace
}  // namespace postern::policy
