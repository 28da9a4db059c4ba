// Every example of docs/POLICY.md loads: a block that begins with ```toml host or ```toml guest is a whole file.
#include <fstream>
#include <sstream>

#include "protocol/policy/bounds.h"
#include "protocol/policy/explain.h"
#include "protocol/policy/grants.h"
#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

struct Block {
  size_t line;
  std::string language;
  std::string text;
};

// Tests run in the project's folder.
std::vector<Block> blocksOfDocument() {
  std::ifstream in("docs/POLICY.md");
  REQUIRE(in.is_open());
  std::vector<Block> blocks;
  bool inside = false;
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.rfind("```", 0) == 0) {
      inside = !inside;
      if (inside) blocks.push_back({number, line.substr(3), ""});
    } else if (inside) {
      blocks.back().text += line + "\n";
    }
  }
  CHECK_FALSE(inside);
  return blocks;
}

TEST_CASE("every example of docs/POLICY.md loads without an error or a warning") {
  size_t examples = 0;
  for (auto& block : blocksOfDocument()) {
    if (block.language.empty()) continue;
    INFO("docs/POLICY.md:", block.line);
    REQUIRE((block.language == "toml host" || block.language == "toml guest"));
    auto result = loadFiles({{"POLICY.md", block.text}}, block.language == "toml host" ? Side::HOST : Side::GUEST);
    if (!result.is<Loaded>()) FAIL(linesOf(result.get<kj::Array<Problem>>()));
    CHECK(result.get<Loaded>().warnings.size() == 0);
    CHECK(result.get<Loaded>().policy->document().files.size() == 1);
    ++examples;
  }
  CHECK(examples >= 10);
}

TEST_CASE("the grants and the explanation that docs/POLICY.md shows are what comes out") {
  kj::StringPtr list = "ping,file.get:/srv/**"_kj, principal = "user:alice"_kj;
  auto written = writeGrants({"web1"_kj, kj::arrayPtr(&list, 1), kj::arrayPtr(&principal, 1)});
  auto ours = loadedFiles({{"web1.toml", written.get<Grants>().hostPolicy.cStr()}});
  bool shown = false, explained = false;
  std::string contractor;
  for (auto& block : blocksOfDocument()) {
    if (block.text.find("grant-web1") != std::string::npos) {
      CHECK((loadedFiles({{"x", block.text}})->hash() == ours->hash()));
      shown = true;
    }
    if (block.text.find("id = \"contractor\"") != std::string::npos) contractor = block.text;
    if (block.text.rfind("denied: no rule", 0) == 0) {
      auto policy = loadedFiles({{"db.toml", contractor}});
      auto carol = Who::user("carol"), db1 = Who::vm("db1");
      auto explanation = explain(*policy, request(carol.caller(), db1.asVm(), "file.get", "/etc/hosts"_kj));
      std::string text = explanation.toText().cStr();
      auto unrelated = text.find("  2 rules have nothing to do with it\n");
      REQUIRE(unrelated != std::string::npos);
      text.erase(unrelated, text.find('\n', unrelated) + 1 - unrelated);
      CHECK(text == block.text);
      explained = true;
    }
  }
  CHECK(shown);
  CHECK(explained);
}

TEST_CASE("the explanation of a mirror that docs/POLICY.md shows is what comes out") {
  std::string rules;
  bool explained = false;
  for (auto& block : blocksOfDocument()) {
    if (block.text.find("id = \"backup-in\"") != std::string::npos) rules = block.text;
    if (block.text.rfind("allowed by rule 'backup-in'", 0) == 0) {
      auto policy = loadedFiles({{"ids.toml", rules}});
      auto old1 = Who::vm("old1", {"legacy"});
      auto text = explain(*policy, request(old1.caller(), TheHost(), "service.backup")).toText();
      CHECK(std::string(text.cStr()) + "\n" == block.text);
      explained = true;
    }
  }
  CHECK(explained);
}

TEST_CASE("docs/POLICY.md names every call, key and bound") {
  std::ifstream in("docs/POLICY.md");
  std::stringstream buffer;
  buffer << in.rdbuf();
  auto text = buffer.str();
  for (auto word : {"status.read",
                    "ping",
                    "info.os",
                    "info.network",
                    "info.filesystems",
                    "info.users",
                    "power.shutdown",
                    "power.restart",
                    "power.suspend",
                    "file.get",
                    "file.put",
                    "file.list",
                    "file.stat",
                    "file.mkdir",
                    "file.remove",
                    "service.NAME",
                    "admin.enroll",
                    "admin.remove",
                    "admin.rekey",
                    "admin.block",
                    "admin.policy",
                    "admin.audit",
                    "admin.events",
                    "exec.run",
                    "time.sync",
                    "fs.freeze",
                    "share.*",
                    "vm-to-vm",
                    "groups",
                    "run-as",
                    "expires",
                    "mirror",
                    "promiscuous",
                    "community",
                    "isolated",
                    "blocked",
                    "rate",
                    "burst",
                    "peak",
                    "open",
                    "calls",
                    "bytes",
                    "want",
                    "at",
                    "args"}) {
    INFO(word);
    CHECK(text.find("`" + std::string(word) + "`") != std::string::npos);
  }
  static_assert(MAX_FILE_BYTES == 1 << 20 && MAX_POLICY_BYTES == 8 << 20 && MAX_FILES == 4096 && MAX_RULES == 16384 &&
                    MAX_GROUPS == 1024 && MAX_PORTS == 16384 && MAX_TESTS == 16384 && MAX_CALLS == 64 &&
                    MAX_GLOBS == 64 && MAX_GLOB_BYTES == 512 && MAX_PATH_BYTES == 4095 && MAX_COMPONENT_BYTES == 255 &&
                    MAX_NESTING == 16,
                "the table of bounds in docs/POLICY.md");
}

}  // namespace
}  // namespace postern::policy
