// policy::load() over any text: what it refuses gives printable errors of bounded number, and what it takes decides
// without a failed assertion, explains what it decides, and takes its own advice.
//
// input = side (even: host), then the text

#include "protocol/policy/explain.h"
#include "protocol/policy/load.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

using namespace policy;

constexpr size_t MAX_ERROR_BYTES = 2000;

bool isPrintable(kj::StringPtr text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') return false;
  }
  return true;
}

LoadResult loadText(kj::ArrayPtr<const char> text, Side side) {
  SourceText source{"fuzz.toml"_kj, text};
  return load(kj::arrayPtr(&source, 1), {side, kj::UNIX_EPOCH + 1800000000 * kj::SECONDS});
}

void judgeErrors(kj::ArrayPtr<const Problem> errors) {
  expect(errors.size() > 0 && errors.size() <= 100, "a refusal has some errors and not too many");
  for (auto& error : errors) {
    expect(error.text.size() > 0 && error.text.size() <= MAX_ERROR_BYTES, "an error is one line of bounded length");
    expect(isPrintable(error.text), "an error is printable");
  }
}

// Advice that adds something makes the request allowed, as long as the text takes an addition at its end.
void judgeAdvice(const Policy& before, kj::ArrayPtr<const char> text, Side side, const Request& request) {
  auto advice = before.advise(request);
  expect(advice.text.size() > 0, "advice is never empty");
  KJ_IF_MAYBE (toml, advice.toml) {
    auto addition = kj::str("policy = 1\n", *toml);
    SourceText sources[] = {{"fuzz.toml"_kj, text}, {"advice.toml"_kj, addition}};
    auto again = load(sources, {side, request.now});
    if (again.is<Loaded>()) {
      expect(again.get<Loaded>().policy->decide(request).isAllowed(), "what advice adds allows the request");
      return;
    }
    // A test of the policy may forbid it, which is what tests are for.
    for (auto& error : again.get<kj::Array<Problem>>()) {
      expect(error.text.startsWith("test failed"), "what advice adds is without errors");
    }
  }
}

void judge(const Policy& policy, kj::ArrayPtr<const char> text, Side side) {
  kj::StringPtr groups[] = {"g"_kj, "ops"_kj};
  kj::StringPtr tags[] = {"t"_kj};
  Caller callers[] = {HostCaller{"a", groups}, Vm{"v", tags},
                      HostCaller{"", nullptr, HostCaller::Rights::ADMINISTRATOR}};
  Target targets[] = {Vm{"w", tags}, TheHost()};
  struct {
    kj::StringPtr call;
    kj::Maybe<kj::StringPtr> path;
  } calls[] = {
      {"ping"_kj, nullptr}, {"file.get"_kj, "/srv/a/b"_kj}, {"service.x"_kj, nullptr}, {"admin.audit"_kj, nullptr}};
  for (auto& caller : callers) {
    for (auto& target : targets) {
      for (auto& call : calls) {
        Request request;
        request.caller = caller;
        request.target = target;
        request.call = call.call;
        request.path = call.path;
        request.now = kj::UNIX_EPOCH + 1800000000 * kj::SECONDS;
        auto decision = policy.decide(request);
        auto explanation = explain(policy, request);
        size_t deciding = 0;
        for (auto& note : explanation.notes) deciding += note.standing == Standing::DECIDES ? 1 : 0;
        bool byRule = decision.reason == Reason::RULE || decision.reason == Reason::SEGMENT ||
                      decision.reason == Reason::DENY_RULE;
        expect(deciding == (byRule ? 1 : 0), "an explanation and a verdict name the same rule");
        if (!decision.isAllowed()) judgeAdvice(policy, text, side, request);
      }
    }
  }
}

void run(kj::ArrayPtr<const char> text, Side side) {
  auto result = loadText(text, side);
  KJ_SWITCH_ONEOF(result) {
    KJ_CASE_ONEOF(loaded, Loaded) {
      judge(*loaded.policy, text, side);
    }
    KJ_CASE_ONEOF(errors, kj::Array<Problem>) {
      judgeErrors(errors);
    }
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::Input input(data, size);
  auto side = input.u8() % 2 == 0 ? postern::policy::Side::HOST : postern::policy::Side::GUEST;
  auto bytes = postern::fuzz::copyOf(input.takeAll());
  postern::fuzz::run(kj::arrayPtr(reinterpret_cast<const char*>(bytes.begin()), bytes.size()), side);
  return 0;
}
