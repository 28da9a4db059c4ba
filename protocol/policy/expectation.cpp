#include "protocol/policy/expectation.h"

#include <kj/debug.h>

namespace postern::policy {

namespace {

// The parties of a test as somebody in particular. Borrows from the test.
struct Somebody {
  kj::StringPtr name;
  kj::Vector<kj::StringPtr> others;  // groups or tags

  explicit Somebody(kj::ArrayPtr<const Party> parties) {
    for (auto& party : parties) {
      if (party.kind == Party::Kind::USER || party.kind == Party::Kind::VM) {
        name = party.name;
      } else if (party.kind == Party::Kind::HOST_GROUP || party.kind == Party::Kind::TAG) {
        others.add(party.name);
      }
    }
  }
};

bool isOnHost(kj::ArrayPtr<const Party> parties) {
  auto kind = parties[0].kind;
  return kind == Party::Kind::USER || kind == Party::Kind::HOST_GROUP || kind == Party::Kind::HOST;
}

Decision decideTest(const Policy& policy, const Expectation& test) {
  Somebody from(test.from), to(test.to);
  Request request;
  if (isOnHost(test.from)) {
    auto rights = from.name == "root" ? HostCaller::Rights::ADMINISTRATOR : HostCaller::Rights::USUAL;
    request.caller = HostCaller{from.name, from.others, rights};
  } else {
    request.caller = Vm{from.name, from.others};
  }
  if (!test.to.empty() && isOnHost(test.to)) {
    request.target = TheHost();
  } else {
    request.target = Vm{to.name, to.others};
  }
  request.call = test.call;
  KJ_IF_MAYBE (path, test.path) request.path = kj::StringPtr(*path);
  // Without a time of its own a test's outcome must not change by itself one night: nothing has expired then.
  constexpr int64_t MAX_SECONDS = INT64_MAX / 1000000000;
  int64_t at = kj::max(-MAX_SECONDS, kj::min(MAX_SECONDS, test.at.orDefault(INT64_MIN)));
  request.now = kj::UNIX_EPOCH + at * kj::SECONDS;
  return policy.decide(request);
}

bool isMet(const Expectation& test, const Decision& decision) {
  if (decision.isAllowed() != test.wantsAllow) return false;
  KJ_IF_MAYBE (id, test.ruleId) return decision.ruleId() == *id;
  return true;
}

}  // namespace

kj::String TestResult::toString() const {
  auto list = [](kj::ArrayPtr<const Party> parties) {
    return kj::strArray(
        KJ_MAP(party, parties) { return kj::str(party); }, "+");
  };
  auto to = test->to.empty() ? kj::str("this guest") : list(test->to);
  kj::String path;
  KJ_IF_MAYBE (p, test->path) path = kj::str(' ', *p);
  kj::String id;
  KJ_IF_MAYBE (rule, test->ruleId) id = kj::str(" by rule '", *rule, "'");
  return kj::str(list(test->from), ", ", test->call, path, " of ", to, ": wanted ", test->wantsAllow ? "allow" : "deny",
                 id, ", was ", decision.toString());
}

kj::Vector<TestResult> runTests(const Policy& policy) {
  kj::Vector<TestResult> results;
  for (auto& test : policy.document().tests) {
    auto decision = decideTest(policy, test);
    bool passed = isMet(test, decision);
    results.add(TestResult{&test, kj::mv(decision), passed});
  }
  return results;
}

}  // namespace postern::policy
