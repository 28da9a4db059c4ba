// Orders from a host, over a session, to a real opener in its sandbox and back.

#include <algorithm>

#include "tests/support/sanitized.h"
#include "tests/unit/guest-agent/file-stage.h"

namespace postern::guest::test {
namespace {

using postern::test::SANITIZED;

constexpr kj::StringPtr EVERYTHING = R"(
[[allow]]
id = "files"
call = ["file.*"]
args = { path = ["@", "@/**"] }
%
)"_kj;
constexpr kj::StringPtr BELOW = R"(
[[allow]]
id = "files"
call = ["file.*"]
args = { path = "@/**" }
%
[[deny]]
id = "secrets"
call = ["file.*"]
args = { path = "@/secret*/**" }
)"_kj;

const transfer::Summary& summary(const OpenerEnd& end) {
  KJ_IF_MAYBE (problem, end.tryGet<transfer::Problem>()) KJ_FAIL_REQUIRE("it ended early", problem->detail);
  return end.get<transfer::Summary>();
}

TEST_CASE("a tree goes into the guest and comes back the same" * doctest::skip(SANITIZED)) {
  FileStage stage(EVERYTHING);
  auto from = stage.folder.path("from"), back = stage.folder.path("back");
  for (auto& path : {kj::str(from), kj::str(back), kj::str(from, "/site"), kj::str(from, "/site/empty")}) {
    KJ_SYSCALL(mkdir(path.cStr(), 0755));
  }
  auto big = kj::heapString(size_t(5) << 20);
  for (size_t i = 0; i < big.size(); ++i) big[i] = char('a' + i % 23);
  writeFile(kj::str(from, "/site/small\n\xff"), "content", 0640);
  writeFile(kj::str(from, "/site/big"), big, 0600);

  auto put = stage.order(FileCall::PUT, stage.root);
  put.recursive = true;
  put.verify = true;
  auto end = stage.put(from, "site", put);
  CHECK(summary(end).files == 2);
  CHECK(summary(end).failures == 0);
  CHECK((readFile(stage.inGuest("site/small\n\xff")) == "content"));
  CHECK((readFile(stage.inGuest("site/big")) == big));

  auto get = stage.order(FileCall::GET, stage.inGuest("site"));
  get.recursive = true;
  CHECK(summary(stage.get(get, back)).files == 2);
  CHECK((readFile(kj::str(back, "/site/big")) == big));
  CHECK((readFile(kj::str(back, "/site/small\n\xff")) == "content"));
  CHECK(exists(kj::str(back, "/site/empty")));
  stage.waitUntilIdle();
}

TEST_CASE("list tells what is in a directory, stat the one entry" * doctest::skip(SANITIZED)) {
  FileStage stage(EVERYTHING);
  writeFile(stage.inGuest("one"), "1", 0644);
  KJ_SYSCALL(mkdir(stage.inGuest("two").cStr(), 0755));
  writeFile(stage.inGuest("two/deep"), "2", 0644);
  summary(stage.list(stage.order(FileCall::LIST, stage.root)));
  std::sort(stage.heard.entries.begin(), stage.heard.entries.end());
  CHECK((kj::strArray(stage.heard.entries, " ") == "guest guest/one guest/two"));
  stage.heard.entries.clear();
  summary(stage.list(stage.order(FileCall::STAT, stage.inGuest("two"))));
  CHECK((kj::strArray(stage.heard.entries, " ") == "two"));
  stage.heard.entries.clear();
  summary(stage.list(stage.order(FileCall::STAT, stage.inGuest("three"))));
  CHECK((kj::strArray(stage.heard.failures, " ") == "three: no-such-file"));
}

TEST_CASE("directories are made and removed without a channel, and problems come back" * doctest::skip(SANITIZED)) {
  FileStage stage(EVERYTHING);
  auto make = stage.order(FileCall::MKDIR, stage.inGuest("a/b"));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(make)) == ProblemKind::NO_SUCH_FILE));
  make.makeParents = true;
  CHECK(stage.problemOf(make) == nullptr);
  CHECK(exists(stage.inGuest("a/b")));
  auto remove = stage.order(FileCall::REMOVE, stage.inGuest("a"));
  CHECK(stage.problemOf(remove) != nullptr);
  remove.recursive = true;
  CHECK(stage.problemOf(remove) == nullptr);
  CHECK_FALSE(exists(stage.inGuest("a")));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(remove)) == ProblemKind::NO_SUCH_FILE));
}

TEST_CASE("where a put goes: into a directory that is there, else to the name" * doctest::skip(SANITIZED)) {
  FileStage stage(EVERYTHING);
  auto from = stage.folder.path("from");
  KJ_SYSCALL(mkdir(from.cStr(), 0755));
  KJ_SYSCALL(mkdir(stage.inGuest("there").cStr(), 0755));
  writeFile(kj::str(from, "/file"), "new", 0644);
  CHECK(summary(stage.put(from, "file", stage.order(FileCall::PUT, stage.inGuest("there")))).files == 1);
  CHECK((readFile(stage.inGuest("there/file")) == "new"));
  CHECK(summary(stage.put(from, "file", stage.order(FileCall::PUT, stage.inGuest("other")))).files == 1);
  CHECK((readFile(stage.inGuest("other")) == "new"));

  auto into = stage.order(FileCall::PUT, stage.inGuest("missing"));
  into.intoDirectory = true;
  CHECK((stage.put(from, "file", into).get<transfer::Problem>().kind == ProblemKind::NO_SUCH_FILE));
  into.path = stage.inGuest("other");
  CHECK((stage.put(from, "file", into).get<transfer::Problem>().kind == ProblemKind::NOT_DIRECTORY));
  auto nowhere = stage.order(FileCall::PUT, stage.inGuest("missing/file"));
  CHECK((stage.put(from, "file", nowhere).get<transfer::Problem>().kind == ProblemKind::NO_SUCH_FILE));
}

// T74
TEST_CASE("symbolic links are followed nowhere: not on the way, not as the destination, not by the root folder" *
          doctest::skip(SANITIZED)) {
  FileStage stage(EVERYTHING);
  auto from = stage.folder.path("from"), outside = stage.folder.path("outside");
  KJ_SYSCALL(mkdir(from.cStr(), 0755));
  KJ_SYSCALL(mkdir(outside.cStr(), 0755));
  writeFile(kj::str(from, "/file"), "new", 0644);
  writeFile(kj::str(outside, "/secret"), "secret", 0644);
  KJ_SYSCALL(symlink(outside.cStr(), stage.inGuest("way").cStr()));

  auto put = stage.order(FileCall::PUT, stage.inGuest("way/file"));
  auto refused = stage.put(from, "file", put);
  INFO(refused.get<transfer::Problem>().detail.cStr());
  CHECK((refused.get<transfer::Problem>().kind == ProblemKind::SYMBOLIC_LINK));
  put.path = stage.inGuest("way");
  CHECK((stage.put(from, "file", put).get<transfer::Problem>().kind == ProblemKind::SYMBOLIC_LINK));
  CHECK_FALSE(exists(kj::str(outside, "/file")));

  stage.get(stage.order(FileCall::GET, stage.inGuest("way/secret")), from);
  CHECK((kj::strArray(stage.heard.failures, " ") == "secret: symbolic-link"));
  CHECK_FALSE(exists(kj::str(from, "/secret")));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(stage.order(FileCall::MKDIR, stage.inGuest("way/new")))) ==
         ProblemKind::SYMBOLIC_LINK));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(stage.order(FileCall::REMOVE, stage.inGuest("way/secret")))) ==
         ProblemKind::SYMBOLIC_LINK));
  CHECK(exists(kj::str(outside, "/secret")));

  // The root folder itself becomes a link.
  KJ_SYSCALL(rename(stage.root.cStr(), stage.folder.path("moved").cStr()));
  KJ_SYSCALL(symlink(outside.cStr(), stage.root.cStr()));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(stage.order(FileCall::REMOVE, stage.inGuest("secret")))) ==
         ProblemKind::SYMBOLIC_LINK));
  CHECK(exists(kj::str(outside, "/secret")));
}

// T74
TEST_CASE("what a rule allows below a folder can be reached from it; what it does not, or a deny names, cannot" *
          doctest::skip(SANITIZED)) {
  FileStage stage(BELOW);
  auto from = stage.folder.path("from");
  KJ_SYSCALL(mkdir(from.cStr(), 0755));
  writeFile(kj::str(from, "/file"), "new", 0644);
  KJ_SYSCALL(mkdir(stage.inGuest("secret").cStr(), 0755));
  writeFile(stage.inGuest("secret/key"), "key", 0644);

  CHECK(summary(stage.put(from, "file", stage.order(FileCall::PUT, stage.root))).files == 1);
  CHECK((readFile(stage.inGuest("file")) == "new"));

  auto get = stage.order(FileCall::GET, stage.inGuest("secret"));
  get.recursive = true;
  auto end = stage.get(get, from);
  CHECK(summary(end).files == 0);
  CHECK((kj::strArray(stage.heard.failures, " ") == "secret/key: denied"));
  CHECK_FALSE(exists(kj::str(from, "/secret/key")));

  CHECK(stage.refusalOf(stage.order(FileCall::GET, stage.inGuest("secret/key"))).startsWith("denied: denied by rule"));
  CHECK(stage.refusalOf(stage.order(FileCall::PUT, "/tmp")).startsWith("denied"));
  CHECK(stage.refusalOf(stage.order(FileCall::LIST, "/")).startsWith("denied"));
  CHECK(stage.refusalOf(stage.order(FileCall::MKDIR, stage.root)).startsWith("denied"));
  CHECK(stage.refusalOf(stage.order(FileCall::REMOVE, stage.root)).startsWith("denied"));
}

TEST_CASE("a root folder that is not there is told, on either way" * doctest::skip(SANITIZED)) {
  FileStage stage(BELOW);
  auto from = stage.folder.path("from");
  KJ_SYSCALL(mkdir(from.cStr(), 0755));
  writeFile(kj::str(from, "/file"), "new", 0644);
  KJ_SYSCALL(rmdir(stage.root.cStr()));
  auto put = stage.put(from, "file", stage.order(FileCall::PUT, stage.inGuest("x")));
  auto& problem = put.get<transfer::Problem>();
  CHECK((problem.kind == ProblemKind::NO_SUCH_FILE));
  CHECK(problem.detail.startsWith(kj::str("the folder ", stage.root)));
  stage.get(stage.order(FileCall::GET, stage.inGuest("x")), from);
  CHECK((kj::strArray(stage.heard.failures, " ") == "x: no-such-file"));
  CHECK((KJ_REQUIRE_NONNULL(stage.problemOf(stage.order(FileCall::MKDIR, stage.inGuest("x")))) ==
         ProblemKind::NO_SUCH_FILE));
}

}  // namespace
}  // namespace postern::guest::test
