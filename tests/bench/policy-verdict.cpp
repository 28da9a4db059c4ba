// policy-verdict: what one decision costs among a thousand rules, in the ways in which rules can be many.

#include <kj/debug.h>

#include <string>

#include "protocol/policy/load.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

constexpr int RULES = 1000;
constexpr double VERDICT_MICROSECONDS = 20;

kj::Date now() {
  return kj::UNIX_EPOCH + 1'800'000'000 * kj::SECONDS;
}

kj::Own<const policy::Policy> policyOf(const std::string& rules) {
  auto text = "policy = 1\n" + rules;
  policy::SourceText source{"p.toml", kj::arrayPtr(text.data(), text.size())};
  auto loaded = policy::load(kj::arrayPtr(&source, 1), policy::LoadOptions{policy::Side::HOST, now(), nullptr});
  KJ_REQUIRE(loaded.is<policy::Loaded>(), "the policy has errors");
  return kj::mv(loaded.get<policy::Loaded>().policy);
}

void measure(const Options& options, Report& report, kj::StringPtr name, const std::string& rules, kj::StringPtr call,
             kj::Maybe<kj::StringPtr> path) {
  auto policy = policyOf(rules);
  kj::StringPtr groups[] = {"users", "ops", "dev"}, tags[] = {"prod", "web"};
  policy::Request request;
  request.caller = policy::HostCaller{"alice", groups, policy::HostCaller::Rights::USUAL};
  request.target = policy::Vm{"vm999", tags};
  request.call = call;
  request.path = path;
  request.now = now();
  int times = options.quick ? 10 : 5000;
  KJ_REQUIRE(policy->decide(request).isAllowed());
  double began = cpuSeconds();
  for (int i = 0; i < times; ++i) KJ_REQUIRE(policy->decide(request).isAllowed());
  report.add(name, "us", Target::atMost(1), {VERDICT_MICROSECONDS, (cpuSeconds() - began) * 1e6 / times});
}

}  // namespace

void measurePolicyVerdict(const Options& options, Report& report) {
  std::string each, same = "[groups]\nops = [\"group:ops\"]\n", globs = same;
  for (int i = 0; i < RULES; ++i) {
    auto n = std::to_string(i);
    each +=
        "[[allow]]\nid = \"r" + n + "\"\nfrom = \"user:alice\"\nto = \"vm" + n + "\"\ncall = [\"ping\", \"power.*\"]\n";
    same += "[[allow]]\nid = \"r" + n + "\"\nfrom = \"@ops\"\nto = \"any\"\ncall = \"*\"\n";
    globs += "[[allow]]\nid = \"r" + n +
             "\"\nfrom = \"@ops\"\nto = \"any\"\ncall = \"file.*\"\nargs = { path = \"/srv/site" + n + "/**\" }\n";
  }
  measure(options, report, "policy-verdict, a rule for each VM", each, "power.restart", nullptr);
  measure(options, report, "policy-verdict, rules that all match", same, "ping", nullptr);
  measure(options, report, "policy-verdict, globs on one call", globs, "file.get", "/srv/site999/a/b/c"_kj);
}

}  // namespace postern::bench
