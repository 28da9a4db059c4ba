#include "protocol/transfer/path-scope.h"

#include <algorithm>

#include "protocol/policy/bounds.h"
#include "protocol/policy/index.h"
#include "protocol/policy/wording.h"
#include "protocol/transfer/limits.h"

namespace postern::transfer {

namespace {

using policy::Policy;
using policy::Request;

bool matches(const kj::Vector<policy::PathGlob>& globs, kj::ArrayPtr<const char> path) {
  if (globs.empty()) return true;
  for (auto& glob : globs) {
    if (glob.matchesBytes(path)) return true;
  }
  return false;
}

bool isBlocked(const Policy& policy, kj::StringPtr vm) {
  KJ_IF_MAYBE (port, policy.port(vm)) return port->blocked;
  return false;
}

// Whether the policy has anything to say of such a request: a file call of somebody on the host, to a VM whose port is
// open.
bool isFileCall(const Policy& policy, const Request& request) {
  if (!request.caller.is<policy::HostCaller>() || !request.target.is<policy::Vm>()) return false;
  KJ_IF_MAYBE (family, policy::familyOf(request.call)) {
    return policy::hasPath(*family) && !isBlocked(policy, request.target.get<policy::Vm>().name);
  }
  return false;
}

// Every rule that names caller, target and call, and has not expired; sorted by id.
kj::Vector<const policy::Rule*> rulesFor(const Policy& policy, const Request& request) {
  kj::Vector<const policy::Rule*> result;
  auto clauses = policy.index().allClauses();
  policy::ClauseSet matching(clauses.size());
  policy.index().match(request, policy::CallFamily::FILE, matching);
  int64_t now = (request.now - kj::UNIX_EPOCH) / kj::SECONDS;
  for (size_t i = 0; i < clauses.size(); ++i) {
    const auto* rule = clauses[i].rule;
    if (!matching.contains(i) || now >= rule->expires.orDefault(INT64_MAX)) continue;
    if (result.empty() || result.back() != rule) result.add(rule);
  }
  return result;
}

bool fits(kj::ArrayPtr<const policy::Rule* const> rules) {
  size_t bytes = 0;
  for (auto rule : rules) {
    for (auto& glob : rule->paths) bytes += glob.text().size();
  }
  return rules.size() <= MAX_SCOPE_RULES && bytes <= MAX_SCOPE_BYTES;
}

kj::Vector<policy::PathGlob> copy(const kj::Vector<policy::PathGlob>& globs) {
  kj::Vector<policy::PathGlob> result(globs.size());
  for (auto& glob : globs) {
    auto again = policy::PathGlob::parse(glob.text());
    result.add(kj::mv(again.get<policy::PathGlob>()));
  }
  return result;
}

uint64_t smaller(uint64_t bound, kj::Maybe<uint64_t> other) {
  uint64_t o = other.orDefault(0);
  return bound == 0 || (o > 0 && o < bound) ? o : bound;
}

uint32_t asDepth(uint64_t depth) {
  return uint32_t(std::min<uint64_t>(depth, MAX_DEPTH));
}

}  // namespace

PathScope PathScope::of(const Policy& policy, const Request& request) {
  PathScope scope;
  if (!isFileCall(policy, request)) return scope;
  auto found = rulesFor(policy, request);
  if (!fits(found)) return scope;
  for (auto rule : found) {
    kj::String runAs;
    KJ_IF_MAYBE (user, rule->runAs) runAs = kj::heapString(*user);
    scope.rules.add(
        Rule{kj::heapString(rule->id), rule->kind == policy::Rule::Kind::DENY, copy(rule->paths), kj::mv(runAs)});
  }
  kj::Maybe<const Rule&> deciding;
  KJ_IF_MAYBE (path, request.path) deciding = scope.decides(*path);
  bool first = true;
  for (size_t i = 0; i < found.size(); ++i) {
    if (scope.rules[i].denies) continue;
    KJ_IF_MAYBE (rule, deciding) {
      if (!rule->denies && rule != &scope.rules[i]) continue;
    }
    if (first) {
      scope.takeQuotas(found[i]->quotas);
    } else {
      scope.takeSmallest(found[i]->quotas);
    }
    first = false;
  }
  return scope;
}

void PathScope::takeQuotas(const policy::Quotas& quotas) {
  maxBytes = quotas.bytes.orDefault(0);
  maxFiles = quotas.files.orDefault(0);
  maxDepth = asDepth(quotas.depth.orDefault(0));
  special = quotas.special;
}

void PathScope::takeSmallest(const policy::Quotas& quotas) {
  maxBytes = smaller(maxBytes, quotas.bytes);
  maxFiles = smaller(maxFiles, quotas.files);
  maxDepth = asDepth(smaller(maxDepth, quotas.depth));
  special = special && quotas.special;
}

kj::Maybe<kj::String> PathScope::parseRule(schema::PathScope::Rule::Reader from, Rule& to) {
  auto id = from.getId();
  auto runAs = from.getRunAs();
  auto paths = from.getPaths();
  if (id.size() == 0 || id.size() > MAX_RULE_ID_BYTES) return kj::str("a rule's id has no or too many bytes");
  if (runAs.size() > policy::MAX_NAME_BYTES) return kj::str("rule ", policy::quote(id), ": run-as is too long");
  if (paths.size() > policy::MAX_GLOBS) return kj::str("rule ", policy::quote(id), " has too many paths");
  to.id = kj::heapString(id);
  to.denies = from.getDenies();
  to.runAs = kj::heapString(runAs);
  for (auto path : paths) {
    auto glob = policy::PathGlob::parse(path);
    KJ_SWITCH_ONEOF(glob) {
      KJ_CASE_ONEOF(parsed, policy::PathGlob) to.paths.add(kj::mv(parsed));
      KJ_CASE_ONEOF(error, kj::String) return kj::mv(error);
    }
  }
  return nullptr;
}

kj::OneOf<PathScope, kj::String> PathScope::parse(schema::PathScope::Reader from) {
  PathScope scope;
  auto rules = from.getRules();
  if (rules.size() > MAX_SCOPE_RULES) return kj::str("a scope has at most ", MAX_SCOPE_RULES, " rules");
  for (auto rule : rules) {
    Rule parsed;
    KJ_IF_MAYBE (error, parseRule(rule, parsed)) return kj::mv(*error);
    if (!scope.rules.empty() && !(scope.rules.back().id < parsed.id)) {
      return kj::str("a scope's rules are sorted by id");
    }
    scope.rules.add(kj::mv(parsed));
  }
  scope.maxBytes = from.getMaxBytes();
  scope.maxFiles = from.getMaxFiles();
  scope.maxDepth = from.getMaxDepth();
  scope.special = from.getSpecial();
  return kj::mv(scope);
}

void PathScope::write(schema::PathScope::Builder to) const {
  auto out = to.initRules(unsigned(rules.size()));
  for (unsigned i = 0; i < out.size(); ++i) {
    auto& rule = rules[i];
    out[i].setId(rule.id);
    out[i].setDenies(rule.denies);
    if (rule.runAs.size() > 0) out[i].setRunAs(rule.runAs);
    auto paths = out[i].initPaths(unsigned(rule.paths.size()));
    for (unsigned p = 0; p < paths.size(); ++p) paths.set(p, rule.paths[p].text());
  }
  to.setMaxBytes(maxBytes);
  to.setMaxFiles(maxFiles);
  to.setMaxDepth(maxDepth);
  to.setSpecial(special);
}

// T69
kj::Maybe<const PathScope::Rule&> PathScope::decides(kj::ArrayPtr<const char> path) const {
  if (!policy::isCanonicalPath(path)) return nullptr;
  kj::Maybe<const Rule&> allows;
  for (auto& rule : rules) {
    if (!rule.denies && allows != nullptr) continue;
    if (!matches(rule.paths, path)) continue;
    if (rule.denies) return rule;
    allows = rule;
  }
  return allows;
}

PathScope::Verdict PathScope::decide(kj::ArrayPtr<const char> path) const {
  KJ_IF_MAYBE (rule, decides(path)) {
    if (rule->denies) return {false, rule->id, nullptr};
    return {true, rule->id, rule->runAs};
  }
  return {false, nullptr, nullptr};
}

void PathScope::keepRunAs(kj::StringPtr runAs) {
  kj::Vector<Rule> kept(rules.size());
  for (auto& rule : rules) {
    if (rule.denies || rule.runAs == runAs) kept.add(kj::mv(rule));
  }
  rules = kj::mv(kept);
}

bool PathScope::allowsSomething() const {
  bool allows = false;
  for (auto& rule : rules) {
    if (rule.denies && rule.paths.empty()) return false;
    if (!rule.denies) allows = true;
  }
  return allows;
}

kj::Maybe<kj::String> PathScope::rootFor(kj::ArrayPtr<const char> path) const {
  KJ_IF_MAYBE (rule, decides(path)) {
    if (rule->denies) return nullptr;
    kj::ArrayPtr<const char> root = "/"_kj;
    for (auto& glob : rule->paths) {
      if (glob.matchesBytes(path) && glob.folder().size() > root.size()) root = glob.folder();
    }
    return kj::heapString(root);
  }
  return nullptr;
}

}  // namespace postern::transfer
