// Quotas of file rules: read, part of what a policy says, and no part of whether something is allowed.
#include "protocol/policy/diff.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

constexpr auto HEAD = "[[allow]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"v\"\ncall = \"file.*\"\nargs = { ";

kj::Own<const Policy> withArgs(const std::string& args) {
  return hostPolicy(HEAD + args + " }\n");
}

TEST_CASE("quotas of an allow are read as they are written, with a path and without") {
  auto policy = withArgs("max-bytes = \"10 GiB\", max-files = 7, max-depth = 256, special = true");
  auto& rule = policy->document().rules[0];
  CHECK(rule.paths.empty());
  CHECK((rule.quotas.bytes == uint64_t(10) << 30));
  CHECK((rule.quotas.files == uint64_t(7)));
  CHECK((rule.quotas.depth == uint64_t(256)));
  CHECK(rule.quotas.special);
  CHECK_FALSE(rule.quotas.isEmpty());

  auto plain = withArgs("path = \"/srv/**\", special = false");
  CHECK(plain->document().rules[0].quotas.isEmpty());
  auto guest = guestPolicy("[[allow]]\nid = \"r\"\ncall = \"file.put\"\nargs.max-depth = 2\n");
  CHECK((guest->document().rules[0].quotas.depth == uint64_t(2)));
}

TEST_CASE("each quota is part of what a policy says, and one that says nothing is not") {
  auto plain = withArgs("path = \"/a\"");
  CHECK((withArgs("path = \"/a\", special = false")->hash() == plain->hash()));
  std::vector<kj::Own<const Policy>> all;
  all.push_back(kj::mv(plain));
  for (auto quota :
       {"max-bytes = \"1 B\"", "max-bytes = \"2 B\"", "max-files = 1", "max-depth = 1", "special = true"}) {
    auto other = withArgs(std::string("path = \"/a\", ") + quota);
    INFO(quota);
    for (auto& before : all) {
      CHECK((before->hash() != other->hash()));
      auto changed = changes(*before, *other);
      REQUIRE(changed.size() == 1);
      CHECK((changed[0].toString() == "rule 'r' changed"));
    }
    all.push_back(kj::mv(other));
  }
}

TEST_CASE("an error in a quota has file, line and advice") {
  struct Case {
    const char *kind, *call, *args, *says;
  };
  for (auto& one : std::initializer_list<Case>{
           {"allow", "ping", "max-files = 1", "'args' is for file.* only"},
           {"allow", "file.put", "max-bytes = \"1 G\"", "max-bytes = '1 G': unit 'G' is unknown"},
           {"allow", "file.put", "max-bytes = \"0 B\"", "is nothing at all"},
           {"allow", "file.put", "max-bytes = 5", "'max-bytes' in args is a number; write a text in quotes"},
           {"allow", "file.put", "max-files = 0", "'max-files' is 0; write at least 1"},
           {"allow", "file.put", "max-files = -3", "'max-files' is -3; write at least 1"},
           {"allow", "file.put", "max-files = \"9\"", "'max-files' in args is a text; write a whole number"},
           {"allow", "file.put", "max-depth = 257", "nothing is copied that is deeper than 256 folders"},
           {"allow", "file.put", "special = 1", "write true or false"},
           {"allow", "file.put", "max-file = 1", "unknown key 'max-file' in args; did you mean 'max-files'?"},
           {"deny", "file.put", "max-bytes = \"1 B\"", "'max-bytes' has no meaning in a [[deny]]"},
           {"deny", "file.put", "max-files = 3", "'max-files' has no meaning in a [[deny]]"},
           {"deny", "file.put", "max-depth = 3", "'max-depth' has no meaning in a [[deny]]"},
           {"deny", "file.put", "special = true", "'special' has no meaning in a [[deny]]"},
       }) {
    auto rule = std::string("[[") + one.kind + "]]\nid = \"r\"\nfrom = \"user:a\"\nto = \"v\"\ncall = \"" + one.call +
                "\"\nargs = { " + one.args + " }\n";
    auto errors = errorsOf(policyText(rule));
    INFO(one.args);
    INFO(errors);
    CHECK(errors.rfind("p.toml:7: ", 0) == 0);
    CHECK(errors.find(one.says) != std::string::npos);
  }
}

TEST_CASE("a verdict does not depend on quotas") {
  auto policy = withArgs("max-files = 1");
  CHECK(verdict(*policy, Who::user("a"), Who::vm("v"), "file.put", "/x"_kj) == "rule r");
}

}  // namespace
}  // namespace postern::policy
