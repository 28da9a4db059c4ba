// Texts that nobody means well with: each is refused in bounded time and memory, with one printable line an error.
#include <random>

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

bool says(const std::string& text, const std::string& part) {
  bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

std::string repeat(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

// Refused, with errors that fit a terminal.
void checkRefused(const std::string& text) {
  auto errors = errorsOf(text);
  CHECK_FALSE(errors.empty());
  for (char c : errors) {
    if (c != '\n' && (static_cast<unsigned char>(c) < ' ' || c == '\x7f')) FAIL("control character in: ", errors);
  }
}

// T50
TEST_CASE("a text over the bound is refused before it is read") {
  CHECK(says(errorsOf(policyText(std::string(10 << 20, '#'))),
             "p.toml: the file has 10485771 bytes, and a policy's file at most 1048576"));
  std::vector<File> files;
  for (int i = 0; i < 9; ++i) files.push_back({std::to_string(i), policyText("#" + std::string(1000000, 'x'))});
  auto result = loadFiles(files, Side::HOST);
  CHECK(says(linesOf(result.get<kj::Array<Problem>>()), "8: the policy's files have over 8388608 bytes together"));
  result = loadFiles(std::vector<File>(4097, File{"f", "policy = 1"}), Side::HOST);
  CHECK(says(linesOf(result.get<kj::Array<Problem>>()), "over 4096 files"));
}

// T50
TEST_CASE("deep nesting is refused, by brackets, by dots and by both") {
  CHECK(says(errorsOf(policyText("a = " + repeat("[", 100000))), "p.toml:2: brackets or dotted keys"));
  CHECK(says(errorsOf(policyText("a = " + repeat("[\n", 100000))), "nested deeper"));
  CHECK(says(errorsOf(policyText("a = " + repeat("{a=", 100000))), "nested deeper"));
  CHECK(says(errorsOf(policyText(repeat("a.", 400000) + "a = 1")), "p.toml:2: brackets or dotted keys"));
  CHECK(says(errorsOf(policyText("[" + repeat("a.", 400000) + "a]")), "nested deeper"));
  CHECK(says(errorsOf(policyText(repeat("\"a\" . ", 100000) + "a = 1")), "nested deeper"));
  CHECK(says(errorsOf(policyText(repeat("'a'.", 100000) + "a = 1")), "nested deeper"));
  CHECK(says(errorsOf(policyText("x = [" + repeat("{ a.b.c.d.e.f.g.h = [\n", 1000))), "nested deeper"));
  // As deep as it goes is read, and is wrong for another reason.
  CHECK(says(errorsOf(policyText("a = " + repeat("[", 16) + repeat("]", 16))), "unknown key 'a'"));
  CHECK(says(errorsOf(policyText(repeat("a.", 16) + "a = 1")), "unknown key 'a'"));
  // Dots and brackets within texts are no nesting.
  CHECK(errorsOf(policyText("groups = { a = [ \"user:" + repeat("[.", 40) + "\", 'user:" + repeat("{.", 40) +
                            "' ] }  # " + repeat("[.", 40))) == "");
}

TEST_CASE("bytes that are no text are refused") {
  CHECK(says(errorsOf(std::string("policy = 1\n\0", 12)), "p.toml:2: not TOML"));
  CHECK(says(errorsOf(std::string("policy = 1\ngroups = { a = \"user:b\0c\" }\n", 40)), "p.toml:2: not TOML"));
  CHECK(says(errorsOf("policy = 1\n# \xff\n"), "p.toml:2: not TOML"));
  CHECK(says(errorsOf("policy = 1\n\xc3"), "not TOML"));
  CHECK(says(errorsOf("policy = 1\nx = \"\x01\""), "not TOML"));
  CHECK(says(errorsOf("\xff\xfep\0o\0"), "not TOML"));
  CHECK(says(errorsOf(policyText("groups = { a = \"user:\\u0000\" }")), "bad name in 'user:?'"));
  CHECK(says(errorsOf(policyText("groups = { a = \"user:\\u001b[31m\" }")), "bad name in 'user:?[31m'"));
  CHECK(says(errorsOf(policyText("\"\\u001b[31m\" = 1")), "unknown key '?[31m'"));
  CHECK(says(errorsOf(policyText("a = \"\"\"\nx\"\"\"")), "p.toml:2: a string over several lines"));
  CHECK(says(errorsOf(policyText("a = '''x'''")), "a string over several lines"));
}

TEST_CASE("what makes toml++ stumble is an error of the text, with its line") {
  CHECK(errorsOf("policy = 1\n\n[=\nx = 1\n") == "p.toml:3: not TOML: no key, table or value can be read here\n");
  for (auto text :
       {"\xc2\xa4", "a = \xc2\xa4", "a = 1 \xc2\xa4", "\xe2\x82\xac = 1", "\xe3\x81\x82", "\xef\xbb\xbf\xc2\xa4"}) {
    INFO(text);
    CHECK(says(errorsOf(text), "p.toml:1: not TOML: "));
  }
  CHECK(errorsOf("[.") == "p.toml:1: not TOML: no key, table or value can be read here\n");
}

TEST_CASE("too much of everything is refused in time") {
  auto rule = [](size_t i) {
    return "[[deny]]\nid=\"" + std::to_string(i) + "\"\nfrom=\"host\"\nto=\"any\"\ncall=\"ping\"\n";
  };
  std::vector<File> files;
  for (size_t file = 0; file < 2; ++file) {
    std::string text;
    for (size_t i = 0; i < 8193; ++i) text += rule(file * 8193 + i);
    files.push_back({std::to_string(file), policyText(text)});
  }
  auto result = loadFiles(files, Side::HOST);
  CHECK(says(linesOf(result.get<kj::Array<Problem>>()), "over 16384 rules"));

  std::string groups = "[groups]\n", ports = "port = { ", unknown, names = "[[allow]]\nid=\"r\"\nfrom = [ ";
  for (size_t i = 0; i < 60000; ++i) {
    auto number = std::to_string(i);
    groups += "g" + number + " = []\n";
    ports += "p" + number + " = {}, ";
    unknown += "k" + number + " = 1\n";
    names += "'@g" + number + "', ";
  }
  ports += " x = {} }";
  names += " ]\nto = \"any\"\ncall = \"ping\"\n[groups]\n";
  for (size_t i = 0; i < 1000; ++i) names += "h" + std::to_string(i) + "=[]\n";
  CHECK(says(errorsOf(policyText(groups)), "over 1024 groups"));
  CHECK(says(errorsOf(policyText(ports)), "over 16384 ports"));
  CHECK(says(errorsOf(policyText(unknown)), "unknown key"));
  CHECK(says(errorsOf(policyText(names)), "unknown group"));
  CHECK(says(errorsOf(policyText("[[allow]]\nid=\"r\"\nfrom=\"host\"\nto=\"any\"\ncall=[" +
                                 repeat("\"ping\",", 100000) + "]")),
             "over 64 calls"));
  CHECK(says(errorsOf(policyText("[[allow]]\nid=\"r\"\nfrom=\"host\"\nto=\"any\"\ncall=[" +
                                 repeat("\"pong.x\",", 100000) + "]")),
             "unknown call"));
  CHECK(says(errorsOf(policyText("[[allow]]\nid=\"r\"\nfrom=\"host\"\nto=\"any\"\ncall=\"file.*\"\nargs={path=[" +
                                 repeat("\"/a\",", 65) + "]}")),
             "over 64 paths"));
  // A name repeated is one name.
  CHECK(errorsOf(policyText("groups = { g = [" + repeat("'v', ", 100000) + "] }")) == "");
}

TEST_CASE("a chain of a thousand groups is followed, and a ring of them is found") {
  std::string chain = "[[allow]]\nid = \"r\"\nfrom = \"@g0\"\nto = \"any\"\ncall = \"ping\"\n[groups]\n";
  for (int i = 0; i < 1023; ++i) chain += "g" + std::to_string(i) + " = [\"@g" + std::to_string(i + 1) + "\"]\n";
  auto policy = hostPolicy(chain + "g1023 = [\"user:a\"]\n");
  CHECK(verdict(*policy, Who::user("a"), Who::vm("v"), "ping") == "rule r");
  CHECK(says(errorsOf(policyText(chain + "g1023 = [\"@g0\"]\n")), "holds itself"));
}

// T50
TEST_CASE("a text cut anywhere or with any byte changed is loaded or refused, and nothing else") {
  const std::string text =
      "policy = 1\nvm-to-vm = \"enabled\"\ngroups = { w = [\"v1\", '@x'], x = [\"user:a\"] }\n"
      "test = [ { want = \"deny\", from = \"v1\", to = \"v2\", call = \"service.h\" } ]\n"
      "[[allow]]\nid = \"r\"\nfrom = [\"@x\"]  # c\nto = \"@w\"\ncall = \"file.*\"\nargs = { path = \"/srv/**\" }\n"
      "limit = { rate = \"1 MiB/s\", open = 4 }\nexpires = 2030-01-01T00:00:00Z\n"
      "[[segment]]\nid = \"s\"\ncall = \"service.a\"\npromiscuous = [\"h\"]\ncommunity.c = [\"v1\"]\n[port.v]\nblocked "
      "= true\n";
  REQUIRE(errorsOf(text) == "");
  size_t loaded = 0;
  for (size_t size = 0; size < text.size(); ++size) loaded += errorsOf(text.substr(0, size)).empty();
  for (size_t at = 0; at < text.size(); ++at) {
    for (int change : {0x01, 0x20, 0x80, 0xff}) {
      auto changed = text;
      changed[at] = char(changed[at] ^ change);
      loaded += errorsOf(changed).empty();
    }
    auto changed = text;
    for (char c : {'\0', '"', '\'', '[', ']', '{', '.', '\n', '\\'}) {
      changed[at] = c;
      loaded += errorsOf(changed).empty();
    }
  }
  CHECK(loaded > 0);
  std::mt19937 random(7);
  const std::string alphabet = "\"'[]{}.,=#\n\\ a1@:*-";
  for (int i = 0; i < 3000; ++i) {
    std::string noise = "policy = 1\n";
    for (size_t n = random() % 60; n > 0; --n) noise += alphabet[random() % alphabet.size()];
    errorsOf(noise);
  }
  checkRefused(policyText(repeat("\x1b[31m", 10)));
}

}  // namespace
}  // namespace postern::policy
