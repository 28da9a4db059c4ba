#pragma once
// Random policies, and an oracle that decides by them in the plainest way: texts compared with texts, one rule after
// the other. It shares no code with the engine.

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace postern::policy::random {

using Texts = std::vector<std::string>;

struct RandomRule {
  std::string kind;  // allow, deny, segment
  std::string id;
  Texts from, to, call, path;
  bool expired = false;
  Texts promiscuous, isolated;
  std::map<std::string, Texts> communities;
};

// Somebody as the oracle sees him: "user:a", "group:g", "host" or "v1", "tag:t", "any".
struct Somebody {
  bool isVm;
  Texts names;
};

struct Question {
  Somebody caller, target;  // the host as a target: not a VM, without names but "host"
  bool isAdministrator;
  std::string call, path;
};

struct RandomPolicy {
  std::map<std::string, Texts> groups;
  std::vector<RandomRule> rules;
  Texts blocked;
  std::string vmToVm;  // enabled, disabled, or empty: not written

  // The texts of `files` files with the rules shuffled among them.
  Texts toml(std::mt19937& random, size_t files) const;

  // As verdict() of the fixture has it: "rule r3", "no-rule".
  std::string decide(const Question& question) const;
  // Ids of the rules that match and have not expired.
  Texts matching(const Question& question) const;

 private:
  bool names(const Texts& parties, const Somebody& somebody) const;
  bool matches(const RandomRule& rule, const Question& question) const;
};

RandomPolicy makePolicy(std::mt19937& random);
Question makeQuestion(std::mt19937& random);

}  // namespace postern::policy::random
