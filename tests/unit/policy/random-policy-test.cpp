#include "tests/unit/policy/random-policy.h"

#include "protocol/policy/any-service.h"
#include "protocol/policy/explain.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace random {

namespace {

// Choosing ----------------------------------------------------------------------------------------------------------

size_t below(std::mt19937& random, size_t bound) {
  return std::uniform_int_distribution<size_t>(0, bound - 1)(random);
}
const std::string& oneOf(std::mt19937& random, const Texts& texts) {
  return texts[below(random, texts.size())];
}
Texts someOf(std::mt19937& random, const Texts& texts, size_t most = 3) {
  Texts out;
  for (size_t i = 0, count = 1 + below(random, most); i < count; ++i) out.push_back(oneOf(random, texts));
  return out;
}

const Texts HOST_NAMES = {"user:a", "user:b", "user:c", "group:g", "group:h"};
const Texts VM_NAMES = {"v1", "v2", "v3", "v4", "tag:t", "tag:u"};
const Texts HOST_PARTIES = {"user:a", "user:b",  "user:c",  "group:g", "group:h",
                            "host",   "@users0", "@users1", "@users2", "@mixed"};
const Texts VM_PARTIES = {"v1", "v2", "v3", "v4", "tag:t", "tag:u", "any", "@vms0", "@vms1", "@vms2", "@mixed"};
const Texts VM_MEMBERS = {"v1", "v2", "v3", "v4", "tag:t", "@vms0", "@vms1"};
const Texts VM_CALLS = {"ping",     "status.read", "info.os",   "info.*",    "power.restart", "power.*",
                        "file.get", "file.*",      "service.*", "service.x", "service.y",     "*"};
const Texts FILE_CALLS = {"file.get", "file.put", "file.*"};
const Texts SERVICE_CALLS = {"service.*", "service.x", "service.y"};
const Texts ADMIN_CALLS = {"admin.*", "admin.enroll", "admin.audit", "*"};
const Texts GLOBS = {"/**", "/srv/**", "/srv/*", "/srv/**/c", "/srv/?", "/srv/a/b", "/**/b*", "/", "/*/*"};
const Texts PATHS = {"/",      "/srv",      "/srv/a",  "/srv/a/b", "/srv/a/b/c", "/srv/c",     "/etc/bb",
                     "/srv/.", "/srv/../x", "/srv//a", "/srv/a/",  "srv/a",      "/srv/a/bcd", ""};
const Texts CALLS = {"ping",        "status.read", "info.os",   "info.users", "power.restart", "power.suspend",
                     "file.get",    "file.put",    "service.x", "service.y",  "service.z",     "admin.enroll",
                     "admin.audit", "exec.run",    "service.*", "nonsense",   "service.a.b"};

// Globs, by recursion -----------------------------------------------------------------------------------------------

Texts componentsOf(const std::string& path) {
  Texts out;
  size_t begin = 1;
  while (begin <= path.size()) {
    size_t end = std::min(path.find('/', begin), path.size());
    out.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

bool nameMatches(const std::string& glob, const std::string& name) {
  if (glob.empty()) return name.empty();
  if (glob[0] == '*') return nameMatches(glob.substr(1), name) || (!name.empty() && nameMatches(glob, name.substr(1)));
  return !name.empty() && (glob[0] == '?' || glob[0] == name[0]) && nameMatches(glob.substr(1), name.substr(1));
}

bool globMatches(const Texts& glob, size_t g, const Texts& path, size_t p) {
  if (g == glob.size()) return p == path.size();
  if (glob[g] == "**") {
    if (g + 1 == glob.size()) return p < path.size();
    return globMatches(glob, g + 1, path, p) || (p < path.size() && globMatches(glob, g, path, p + 1));
  }
  return p < path.size() && nameMatches(glob[g], path[p]) && globMatches(glob, g + 1, path, p + 1);
}

bool globMatches(const std::string& glob, const std::string& path) {
  if (glob == "/" || path == "/") return glob == path;
  return globMatches(componentsOf(glob), 0, componentsOf(path), 0);
}

bool isCanonical(const std::string& path) {
  if (path.empty() || path[0] != '/') return false;
  if (path == "/") return true;
  for (auto& component : componentsOf(path)) {
    if (component.empty() || component == "." || component == "..") return false;
  }
  return path.back() != '/';
}

// Calls -------------------------------------------------------------------------------------------------------------

std::string familyOfCall(const std::string& call) {
  return call.substr(0, call.find('.'));
}
bool isCall(const std::string& call) {
  return call != "exec.run" && call != "nonsense" && call != "service.*" && call != "service.a.b";
}
bool covers(const std::string& pattern, const std::string& call) {
  return pattern == "*" || pattern == call || pattern == familyOfCall(call) + ".*";
}
bool canBeCalled(const Question& q) {
  auto family = familyOfCall(q.call);
  if (q.caller.isVm) return family == "service";
  return q.target.isVm ? family != "admin" : family == "admin";
}

std::string list(const Texts& texts) {
  std::string out = "[";
  for (auto& text : texts) out += "\"" + text + "\", ";
  return out + "]";
}

}  // namespace

// The oracle --------------------------------------------------------------------------------------------------------

bool RandomPolicy::names(const Texts& parties, const Somebody& somebody) const {
  for (auto& party : parties) {
    if (party[0] == '@') {
      if (names(groups.at(party.substr(1)), somebody)) return true;
    } else if (std::find(somebody.names.begin(), somebody.names.end(), party) != somebody.names.end()) {
      return true;
    }
  }
  return false;
}

bool RandomPolicy::matches(const RandomRule& rule, const Question& q) const {
  bool call = false;
  for (auto& pattern : rule.call) call |= covers(pattern, q.call);
  if (!call) return false;
  if (rule.kind == "segment") {
    if (names(rule.promiscuous, q.caller) || names(rule.promiscuous, q.target)) {
      auto isMember = [&](const Somebody& somebody) {
        bool found = names(rule.promiscuous, somebody) || names(rule.isolated, somebody);
        for (auto& [name, members] : rule.communities) found |= names(members, somebody);
        return found;
      };
      return isMember(q.caller) && isMember(q.target);
    }
    for (auto& [name, members] : rule.communities) {
      if (names(members, q.caller) && names(members, q.target)) return true;
    }
    return false;
  }
  bool path = rule.path.empty();
  for (auto& glob : rule.path) path |= globMatches(glob, q.path);
  return path && names(rule.from, q.caller) && names(rule.to, q.target);
}

Texts RandomPolicy::matching(const Question& q) const {
  Texts ids;
  for (auto& rule : rules) {
    if (!rule.expired && matches(rule, q)) ids.push_back(rule.id);
  }
  return ids;
}

std::string RandomPolicy::decide(const Question& q) const {
  if (!isCall(q.call)) return "unknown-call";
  if (!canBeCalled(q)) return "not-callable";
  if (q.caller.isVm && q.target.isVm && q.caller.names[1] == q.target.names[1]) return "itself";
  bool isFile = familyOfCall(q.call) == "file";
  if (isFile ? !isCanonical(q.path) : !q.path.empty()) return "bad-path";
  if (familyOfCall(q.call) == "admin" && q.isAdministrator) return "administrator";
  if (q.call != "status.read") {
    for (auto& vm : blocked) {
      if (names({vm}, q.caller) || names({vm}, q.target)) return "blocked-port";
    }
  }
  const RandomRule *deny = nullptr, *allow = nullptr, *expired = nullptr;
  auto least = [](const RandomRule*& best, const RandomRule& rule) {
    if (best == nullptr || rule.id < best->id) best = &rule;
  };
  for (auto& rule : rules) {
    if (!matches(rule, q)) continue;
    if (rule.kind != "deny") {
      least(rule.expired ? expired : allow, rule);
    } else if (!rule.expired) {
      least(deny, rule);
    }
  }
  if (deny != nullptr) return "deny-rule " + deny->id;
  if (q.caller.isVm && q.target.isVm && vmToVm != "enabled") return "vm-to-vm-disabled";
  if (allow != nullptr) return (allow->kind == "segment" ? "segment " : "rule ") + allow->id;
  if (expired != nullptr) return "expired " + expired->id;
  return "no-rule";
}

// Making ------------------------------------------------------------------------------------------------------------

namespace {

RandomRule makeRule(std::mt19937& random, size_t number) {
  RandomRule rule;
  // Ids whose order by bytes is not their order by number.
  rule.id = "r" + std::to_string(number);
  rule.kind = below(random, 4) == 0 ? "deny" : "allow";
  rule.expired = below(random, 8) == 0;
  switch (below(random, 6)) {
    case 0:
      rule.from = someOf(random, HOST_PARTIES);
      rule.to = someOf(random, VM_PARTIES);
      rule.call = someOf(random, VM_CALLS);
      break;
    case 1:
      rule.from = someOf(random, HOST_PARTIES);
      rule.to = someOf(random, VM_PARTIES);
      rule.call = someOf(random, FILE_CALLS);
      rule.path = someOf(random, GLOBS);
      break;
    case 2:
      rule.from = someOf(random, VM_PARTIES);
      rule.to = someOf(random, VM_PARTIES);
      rule.to.push_back("host");
      rule.call = someOf(random, SERVICE_CALLS);
      break;
    case 3:
      rule.from = someOf(random, HOST_PARTIES);
      rule.to = {"host"};
      rule.call = someOf(random, ADMIN_CALLS);
      break;
    case 4:
      rule.from = someOf(random, HOST_PARTIES);
      rule.from.push_back(oneOf(random, VM_PARTIES));
      rule.to = someOf(random, VM_PARTIES);
      rule.call = someOf(random, SERVICE_CALLS);
      break;
    default: {
      rule.kind = "segment";
      rule.call = someOf(random, SERVICE_CALLS);
      // Every member once.
      Texts members = VM_MEMBERS;
      std::shuffle(members.begin(), members.end(), random);
      rule.promiscuous = {members[0]};
      rule.isolated = {members[1], members[2]};
      rule.communities["x"] = {members[3], members[4]};
      if (below(random, 2) == 0) rule.communities["y"] = {members[5]};
    }
  }
  return rule;
}

}  // namespace

RandomPolicy makePolicy(std::mt19937& random) {
  RandomPolicy policy;
  policy.groups["users0"] = someOf(random, HOST_NAMES);
  policy.groups["users1"] = {oneOf(random, HOST_NAMES), "@users0"};
  policy.groups["users2"] = {"@users1", oneOf(random, HOST_NAMES)};
  policy.groups["vms0"] = someOf(random, VM_NAMES);
  policy.groups["vms1"] = {"@vms0", oneOf(random, VM_NAMES)};
  policy.groups["vms2"] = {"@vms1", "@vms0"};
  policy.groups["mixed"] = {oneOf(random, HOST_NAMES), "@vms0", "@users0"};
  for (size_t i = 0, count = 1 + below(random, 14); i < count; ++i) policy.rules.push_back(makeRule(random, i));
  if (below(random, 3) == 0) policy.blocked = {"v4"};
  policy.vmToVm = Texts{"enabled", "enabled", "disabled", ""}[below(random, 4)];
  return policy;
}

Texts RandomPolicy::toml(std::mt19937& random, size_t files) const {
  Texts heads(files, "policy = 1\n"), bodies(files);
  if (!vmToVm.empty()) heads[below(random, files)] += "vm-to-vm = \"" + vmToVm + "\"\n";
  std::vector<Texts> groupLines(files);
  for (auto& [name, members] : groups) {
    Texts shuffled = members;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    groupLines[below(random, files)].push_back(name + " = " + list(shuffled) + "\n");
  }
  auto order = rules;
  std::shuffle(order.begin(), order.end(), random);
  for (auto& rule : order) {
    auto shuffled = [&](Texts texts) {
      std::shuffle(texts.begin(), texts.end(), random);
      return list(texts);
    };
    auto& out = bodies[below(random, files)];
    out += "[[" + rule.kind + "]]  # a comment\nid = \"" + rule.id + "\"\ncall = " + shuffled(rule.call) + "\n";
    if (rule.expired) out += "expires = 2020-01-01T00:00:00Z\n";
    if (rule.kind == "segment") {
      out += "promiscuous = " + shuffled(rule.promiscuous) + "\nisolated = " + shuffled(rule.isolated) + "\n";
      for (auto& [name, members] : rule.communities) out += "community." + name + " = " + shuffled(members) + "\n";
    } else {
      out += "from = " + shuffled(rule.from) + "\nto = " + shuffled(rule.to) + "\n";
      if (!rule.path.empty()) out += "args = { path = " + shuffled(rule.path) + " }\n";
    }
  }
  for (auto& vm : blocked) bodies[below(random, files)] += "[port." + vm + "]\nblocked = true\n";
  for (size_t i = 0; i < files; ++i) {
    if (!groupLines[i].empty()) heads[i] += "[groups]\n";
    for (auto& line : groupLines[i]) heads[i] += line;
    heads[i] += bodies[i];
  }
  return heads;
}

Question makeQuestion(std::mt19937& random) {
  auto vm = [&]() {
    Somebody out{true, {"any", "v" + std::to_string(1 + below(random, 5))}};
    if (below(random, 3) == 0) out.names.push_back("tag:t");
    if (below(random, 3) == 0) out.names.push_back("tag:u");
    return out;
  };
  Question q;
  if (below(random, 2) == 0) {
    q.caller = vm();
  } else {
    q.caller = {false, {"host", oneOf(random, {"user:a", "user:b", "user:c", "user:d"})}};
    for (auto group : {"group:g", "group:h"}) {
      if (below(random, 3) == 0) q.caller.names.push_back(group);
    }
  }
  q.target = below(random, 4) == 0 ? Somebody{false, {"host"}} : vm();
  q.isAdministrator = below(random, 5) == 0;
  q.call = oneOf(random, CALLS);
  if (familyOfCall(q.call) == "file" || below(random, 20) == 0) q.path = oneOf(random, PATHS);
  // Most questions should be ones that can be asked.
  if (isCall(q.call) && !canBeCalled(q) && below(random, 8) != 0) return makeQuestion(random);
  return q;
}

namespace {

// What the engine is asked for a question; owns what the request borrows.
class Asked {
 public:
  explicit Asked(const Question& q)
      : caller(who(q.caller)), target(who(q.target)), call(q.call), path(q.path), question(q) {}

  Request request() const {
    Target to = TheHost();
    if (question.target.isVm) to = target.asVm();
    kj::Maybe<kj::StringPtr> at;
    if (!path.empty()) at = kj::StringPtr(path.c_str());
    auto rights = question.isAdministrator ? HostCaller::Rights::ADMINISTRATOR : HostCaller::Rights::USUAL;
    return policy::request(caller.caller(rights), to, call.c_str(), at);
  }

 private:
  Who caller, target;
  std::string call, path;
  const Question& question;

  static Who who(const Somebody& somebody) {
    Texts others;
    std::string name;
    for (auto& text : somebody.names) {
      if (text == "any" || text == "host") continue;
      auto colon = text.find(':');
      if (colon == std::string::npos || text.rfind("user:", 0) == 0) {
        name = text.substr(colon == std::string::npos ? 0 : colon + 1);
      } else {
        others.push_back(text.substr(colon + 1));
      }
    }
    return somebody.isVm ? Who::vm(name, others) : Who::user(name, others);
  }
};

kj::Own<const Policy> loadTexts(const Texts& texts) {
  std::vector<File> files;
  for (size_t i = 0; i < texts.size(); ++i) files.push_back({std::to_string(i) + ".toml", texts[i]});
  return loadedFiles(files);
}

// What a person who follows the advice gets in the end.
void checkAdvice(Texts texts, const Request& asked) {
  for (int steps = 0; steps < 3; ++steps) {
    auto policy = loadTexts(texts);
    auto decision = policy->decide(asked);
    if (decision.isAllowed()) return;
    auto advice = policy->advise(asked);
    KJ_IF_MAYBE (toml, advice.toml) {
      texts.push_back("policy = 1\n" + std::string(toml->cStr()));
      auto better = loadTexts(texts);
      INFO(texts.back());
      CHECK(better->decide(asked).isAllowed());
      return;
    }
    // Without an addition that helps, the advice is to change a line: the one of the switch, here.
    CHECK(decision.reason != Reason::NO_RULE);
    CHECK(decision.reason != Reason::EXPIRED);
    CHECK(advice.text.size() > 0);
    if (decision.reason != Reason::VM_TO_VM_DISABLED) return;
    for (auto& text : texts) {
      auto found = text.find("\"disabled\"");
      if (found != std::string::npos) text.replace(found, 10, "\"enabled\"");
    }
  }
  CHECK(loadTexts(texts)->decide(asked).isAllowed());
}

void checkExplanation(const Policy& policy, const RandomPolicy& oracle, const Question& question,
                      const Request& asked) {
  auto decision = policy.decide(asked);
  auto explanation = explain(policy, asked);
  CHECK(explanation.decision.reason == decision.reason);
  Texts matching;
  size_t deciding = 0;
  for (auto& note : explanation.notes) {
    if (note.standing == Standing::DECIDES) {
      ++deciding;
      CHECK((note.rule->id == decision.ruleId()));
    }
    if (note.standing < Standing::EXPIRED) matching.push_back(note.rule->id.cStr());
  }
  bool byRule =
      decision.reason == Reason::RULE || decision.reason == Reason::SEGMENT || decision.reason == Reason::DENY_RULE;
  CHECK(deciding == (byRule ? 1 : 0));
  CHECK(explanation.notes.size() + explanation.unrelated == oracle.rules.size());
  CHECK((explanation.advice.text.size() > 0));
  // Of requests that get as far as the rules.
  auto reason = decision.reason;
  if (reason == Reason::UNKNOWN_CALL || reason == Reason::NOT_CALLABLE || reason == Reason::ITSELF ||
      reason == Reason::BAD_PATH) {
    return;
  }
  auto expected = oracle.matching(question);
  std::sort(expected.begin(), expected.end());
  std::sort(matching.begin(), matching.end());
  CHECK(matching == expected);
}

// Who is granted a service of some name may have one, and who may have one is kept from no name but by a deny of it.
void checkAnyService(const Policy& policy, Request asked) {
  asked.path = nullptr;
  bool granted = false, denied = false;
  for (auto call : {"service.x"_kj, "service.y"_kj, "service.z"_kj}) {
    asked.call = call;
    auto decision = policy.decide(asked);
    granted |= decision.isAllowed();
    denied |= decision.reason == Reason::DENY_RULE;
  }
  bool may = mayGrantService(policy, asked.caller, asked.target, asked.now);
  CHECK((may || !granted));
  if (!denied) CHECK(may == granted);
}

// T48
TEST_CASE("two hundred random policies decide as the oracle does, in every order and split of their rules") {
  std::mt19937 random(20271);
  std::map<std::string, size_t> seen;
  for (int round = 0; round < 200; ++round) {
    auto oracle = makePolicy(random);
    auto texts = oracle.toml(random, 1);
    INFO(texts[0]);
    std::vector<kj::Own<const Policy>> policies;
    policies.push_back(loadTexts(texts));
    for (size_t files : {1, 2, 5}) policies.push_back(loadTexts(oracle.toml(random, files)));
    for (auto& policy : policies) CHECK((policy->hash() == policies[0]->hash()));

    for (int i = 0; i < 150; ++i) {
      auto question = makeQuestion(random);
      Asked asked(question);
      auto request = asked.request();
      auto expected = oracle.decide(question);
      ++seen[expected.substr(0, expected.find(' '))];
      for (auto& policy : policies) {
        INFO(question.call, " ", question.path, ": ", policy->decide(request).toString().cStr());
        REQUIRE(verdict(*policy, request) == expected);
      }
      checkExplanation(*policies[0], oracle, question, request);
      checkAnyService(*policies[0], request);
      if (i < 8) checkAdvice(texts, request);
    }
  }
  // Every verdict there is came up, so that none went untested.
  for (auto word : {"rule", "segment", "administrator", "unknown-call", "not-callable", "itself", "bad-path",
                    "blocked-port", "deny-rule", "vm-to-vm-disabled", "expired", "no-rule"}) {
    INFO(word);
    CHECK(seen[word] > 20);
  }
}

}  // namespace
}  // namespace random
}  // namespace postern::policy
