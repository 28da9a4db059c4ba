// What a policy's verdict costs among 1,000 rules, against the bound that is promised and against reading the rules one
// after the other.
#include <kj/debug.h>

#include "protocol/policy/load.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

using namespace policy;

constexpr double BOUND_US = 20;
constexpr int RULES = 1000;

// As a site with a thousand VMs has it: rules for VMs, for tags and for everybody, with groups of users, and files.
kj::String rulesText() {
  kj::Vector<kj::String> parts;
  parts.add(
      kj::str("policy = 1\n[groups]\nops = [\"group:ops\", \"@leads\"]\nleads = [\"user:alice\", \"user:bob\"]\n"));
  for (int i = 0; i < RULES; ++i) {
    auto from = i % 3 == 0 ? kj::str("@ops") : i % 3 == 1 ? kj::str("user:user", i) : kj::str("group:deploy");
    auto to = i % 4 == 0 ? kj::str("tag:site", i % 20) : kj::str("vm", i);
    auto call = i % 2 == 0 ? kj::str("[\"power.*\", \"info.*\"]") : kj::str("[\"file.get\", \"file.put\"]");
    auto args = i % 2 == 0 ? kj::String() : kj::str("args = { path = \"/srv/site", i, "/**\" }\n");
    parts.add(kj::str("[[", i % 10 == 9 ? "deny" : "allow", "]]\nid = \"r", i, "\"\nfrom = \"", from, "\"\nto = \"", to,
                      "\"\ncall = ", call, "\n", args));
  }
  return kj::strArray(parts, "");
}

// The plain way.
class Scan {
 public:
  Scan(const Document& document, const HostCaller& caller, const Vm& target)
      : document(document), caller(caller), target(target) {}

  bool isAllowed(const Request& request) const {
    bool allowed = false;
    auto family = KJ_ASSERT_NONNULL(familyOf(request.call));
    for (auto& rule : document.rules) {
      if (!matches(rule, request, family)) continue;
      if (rule.kind == Rule::Kind::DENY) return false;
      allowed = true;
    }
    return allowed;
  }

 private:
  const Document& document;
  const HostCaller& caller;
  const Vm& target;

  static bool holds(kj::ArrayPtr<const kj::StringPtr> names, kj::StringPtr name) {
    for (auto one : names) {
      if (one == name) return true;
    }
    return false;
  }
  bool isCaller(kj::ArrayPtr<const Party> parties) const {
    for (auto& party : parties) {
      if (party.kind == Party::Kind::USER && party.name == caller.user) return true;
      if (party.kind == Party::Kind::HOST_GROUP && holds(caller.groups, party.name)) return true;
      if (party.kind != Party::Kind::GROUP) continue;
      for (auto& group : document.groups) {
        if (group.name == party.name && isCaller(group.members)) return true;
      }
    }
    return false;
  }
  bool isTarget(kj::ArrayPtr<const Party> parties) const {
    for (auto& party : parties) {
      if (party.kind == Party::Kind::VM && party.name == target.name) return true;
      if (party.kind == Party::Kind::TAG && holds(target.tags, party.name)) return true;
    }
    return false;
  }
  bool matches(const Rule& rule, const Request& request, CallFamily family) const {
    bool call = false, path = rule.paths.empty();
    for (auto& pattern : rule.calls) call |= pattern.covers(request.call, family);
    if (!call || !isCaller(rule.from) || !isTarget(rule.to)) return false;
    KJ_IF_MAYBE (asked, request.path) {
      for (auto& glob : rule.paths) path |= glob.matches(*asked);
    }
    return path;
  }
};

template <typename Decide>
double microsecondsEach(int times, Decide&& decide) {
  double begin = cpuSeconds();
  int allowed = 0;
  for (int i = 0; i < times; ++i) allowed += decide() ? 1 : 0;
  double seconds = cpuSeconds() - begin;
  KJ_REQUIRE(allowed == times, "the measured request must be allowed");
  return seconds * 1e6 / times;
}

}  // namespace

void measurePolicy(const Options& options, Report& report) {
  auto text = rulesText();
  SourceText source{"bench.toml"_kj, text};
  auto loaded = load(kj::arrayPtr(&source, 1), {Side::HOST, kj::UNIX_EPOCH});
  KJ_IF_MAYBE (errors, loaded.tryGet<kj::Array<Problem>>())
    KJ_FAIL_REQUIRE("the rules do not load", (*errors)[0].toString());
  auto& policy = *loaded.get<Loaded>().policy;

  kj::StringPtr groups[] = {"users"_kj, "dev"_kj, "deploy"_kj};
  kj::StringPtr tags[] = {"prod"_kj, "site4"_kj};
  HostCaller caller{"carol", groups};
  Vm target{"vm905", tags};
  Request request;
  request.caller = caller;
  request.target = target;
  request.call = "file.get";
  request.path = "/srv/site905/htdocs/index.html"_kj;

  int times = options.quick ? 100 : 20000;
  Scan scan(policy.document(), caller, target);
  double plain = microsecondsEach(times, [&]() { return scan.isAllowed(request); });
  double ours = microsecondsEach(times, [&]() { return policy.decide(request).isAllowed(); });
  report.add("policy verdict, 1,000 rules", "us", Target::atMost(1.00), {BOUND_US, ours});
  report.add("policy verdict, against a scan", "us", Target::atMost(1.00), {plain, ours});
}

}  // namespace postern::bench
