#pragma once
// Policies out of texts, and the shortest way to ask them.

#include <doctest/doctest.h>
#include <kj/vector.h>

#include <string>
#include <vector>

#include "protocol/policy/load.h"

namespace postern::policy {

inline kj::Date at(int64_t seconds) {
  return kj::UNIX_EPOCH + seconds * kj::SECONDS;
}
constexpr int64_t NOW = 1800000000;  // 2027-01-15T08:00:00Z

struct File {
  std::string name;
  std::string text;
};

inline LoadResult loadFiles(const std::vector<File>& files, Side side,
                            kj::ArrayPtr<const kj::StringPtr> otherKeys = nullptr) {
  kj::Vector<SourceText> sources;
  for (auto& file : files) sources.add(SourceText{file.name.c_str(), kj::arrayPtr(file.text.data(), file.text.size())});
  return load(sources, LoadOptions{side, at(NOW), otherKeys});
}

inline std::string linesOf(const kj::Array<Problem>& problems) {
  std::string out;
  for (auto& problem : problems) out += std::string(problem.toString().cStr()) + "\n";
  return out;
}

// `rules` stand behind the version line, from line 2 on.
inline std::string policyText(const std::string& rules) {
  return "policy = 1\n" + rules;
}

inline kj::Own<const Policy> loadedFiles(const std::vector<File>& files, Side side = Side::HOST) {
  auto result = loadFiles(files, side);
  KJ_IF_MAYBE (errors, result.tryGet<kj::Array<Problem>>()) FAIL(linesOf(*errors));
  return kj::mv(result.get<Loaded>().policy);
}
inline kj::Own<const Policy> hostPolicy(const std::string& rules) {
  return loadedFiles({{"p.toml", policyText(rules)}});
}
inline kj::Own<const Policy> guestPolicy(const std::string& rules) {
  return loadedFiles({{"agent.toml", policyText(rules)}}, Side::GUEST);
}

// The errors of a text, one a line; empty if it loads.
inline std::string errorsOf(const std::string& text, Side side = Side::HOST) {
  auto result = loadFiles({{side == Side::HOST ? "p.toml" : "agent.toml", text}}, side);
  KJ_IF_MAYBE (errors, result.tryGet<kj::Array<Problem>>()) return linesOf(*errors);
  return "";
}

// Somebody, with storage for what a request borrows.
class Who {
 public:
  static Who user(const std::string& name, std::vector<std::string> groups = {}) {
    return {true, name, std::move(groups)};
  }
  static Who vm(const std::string& name, std::vector<std::string> tags = {}) { return {false, name, std::move(tags)}; }

  Caller caller(HostCaller::Rights rights = HostCaller::Rights::USUAL) const {
    if (isUser) return HostCaller{name.c_str(), others, rights};
    return asVm();
  }
  Vm asVm() const { return Vm{name.c_str(), others}; }

 private:
  bool isUser;
  std::string name;
  std::vector<std::string> texts;
  kj::Vector<kj::StringPtr> others;

  Who(bool isUser, std::string name, std::vector<std::string> list)
      : isUser(isUser), name(std::move(name)), texts(std::move(list)) {
    for (auto& text : texts) others.add(text.c_str());
  }
};

inline Request request(Caller caller, Target target, kj::StringPtr call, kj::Maybe<kj::StringPtr> path = nullptr) {
  Request out;
  out.caller = caller;
  out.target = target;
  out.call = call;
  out.path = path;
  out.now = at(NOW);
  return out;
}

// "rule ops", "no-rule": the reason and the rule's id.
inline std::string verdict(const Policy& policy, const Request& asked) {
  auto decision = policy.decide(asked);
  std::string id = decision.ruleId().cStr();
  return std::string(word(decision.reason).cStr()) + (id.empty() ? "" : " " + id);
}
inline std::string verdict(const Policy& policy, const Who& caller, const Who& vm, kj::StringPtr call,
                           kj::Maybe<kj::StringPtr> path = nullptr) {
  return verdict(policy, request(caller.caller(), vm.asVm(), call, path));
}

}  // namespace postern::policy
