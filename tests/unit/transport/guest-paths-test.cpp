#include "transport/transfer/guest-paths.h"

#include <doctest/doctest.h>

#include "tests/unit/transport/scope-fixture.h"
#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;

namespace {

// The folder is "/root/of" in these tests.
struct Root {
  TempDir dir;
  kj::AutoCloseFd handle = folderAt(dir.path());
  PathScope scope = scopeOf({"/root/of/**"}, {"/root/of/**/denied", "/root/of/**/denied/**"});

  kj::Maybe<Problem> make(kj::StringPtr path, bool parents = false, uint16_t mode = 0755) {
    return makeDirectory(handle, "/root/of", path, parents, mode, scope);
  }
  kj::Maybe<Problem> remove(kj::StringPtr path, bool recursive = false) {
    return removePath(handle, "/root/of", path, recursive, scope);
  }
};

bool isDone(const kj::Maybe<Problem>& result) {
  return result == nullptr;
}
ProblemKind kindOf(kj::Maybe<Problem> result) {
  return KJ_ASSERT_NONNULL(result).kind;
}

}  // namespace

TEST_CASE("a path is opened down to the folder that it is in, whatever it ends with") {
  Root root;
  std::filesystem::create_directories(root.dir.file("a/b").cStr());
  writeFile(root.dir.file("a/b/file"), "content");
  auto opened = openPath(root.handle, "/root/of", "/root/of/a/b/file");
  REQUIRE(opened.is<OpenedPath>());
  CHECK(opened.get<OpenedPath>().name == "file");
  CHECK(faccessat(opened.get<OpenedPath>().folder, "file", F_OK, 0) == 0);

  CHECK(openPath(root.handle, "/root/of", "/root/of/a/missing").get<OpenedPath>().name == "missing");
  CHECK(openPath(root.handle, "/root/of", "/root/of").get<OpenedPath>().name == "");
  auto slash = folderAt("/");
  CHECK(openPath(slash, "/", "/").get<OpenedPath>().name == "");
  CHECK(openPath(slash, "/", "/tmp").get<OpenedPath>().name == "tmp");
  CHECK(openPath(root.handle, "/root/of", "/root/of/missing/file").get<Problem>().kind == ProblemKind::NO_SUCH_FILE);
  CHECK(openPath(root.handle, "/root/of", "/root/of/a/b/file/x").get<Problem>().kind == ProblemKind::NOT_DIRECTORY);
  CHECK_THROWS(openPath(root.handle, "/root/of", "/root/offside"));
}

TEST_CASE("a symbolic link on the way is told with where it leads, also if that is below the root") {
  Root root;
  std::filesystem::create_directories(root.dir.file("real").cStr());
  KJ_SYSCALL(symlink("real", root.dir.file("link").cStr()));
  KJ_SYSCALL(symlink("/etc", root.dir.file("out").cStr()));
  auto opened = openPath(root.handle, "/root/of", "/root/of/link/file");
  REQUIRE(opened.is<Problem>());
  CHECK(opened.get<Problem>().kind == ProblemKind::SYMBOLIC_LINK);
  CHECK(opened.get<Problem>().detail.startsWith("/root/of/link: is a symbolic link to real"));
  CHECK(openPath(root.handle, "/root/of", "/root/of/out/passwd").get<Problem>().kind == ProblemKind::SYMBOLIC_LINK);
  CHECK(openFolder(root.handle, "out").get<Problem>().kind == ProblemKind::SYMBOLIC_LINK);
  CHECK(openFolder(root.handle, "real").is<kj::AutoCloseFd>());
  CHECK(openFolder(root.handle, "").is<kj::AutoCloseFd>());
}

TEST_CASE("directories are made with the mode that was asked for, parents on demand") {
  Root root;
  auto before = umask(0077);
  CHECK(isDone(root.make("/root/of/a", false, 0751)));
  CHECK(kindOf(root.make("/root/of/x/y/z")) == ProblemKind::NO_SUCH_FILE);
  CHECK(isDone(root.make("/root/of/x/y/z", true, 06775)));
  umask(before);
  struct stat status {};
  KJ_SYSCALL(stat(root.dir.file("a").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0751);
  KJ_SYSCALL(stat(root.dir.file("x/y/z").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0775);
  CHECK(kindOf(root.make("/root/of/a")) == ProblemKind::EXISTS);
  CHECK(isDone(root.make("/root/of/a", true)));
  CHECK(isDone(root.make("/root/of", true)));
  writeFile(root.dir.file("file"), "content");
  CHECK(kindOf(root.make("/root/of/file")) == ProblemKind::NOT_DIRECTORY);
  CHECK(kindOf(root.make("/root/of/file/x", true)) == ProblemKind::NOT_DIRECTORY);
  KJ_SYSCALL(symlink("/tmp", root.dir.file("link").cStr()));
  CHECK(kindOf(root.make("/root/of/link/x", true)) == ProblemKind::SYMBOLIC_LINK);
  CHECK(kindOf(root.make("/root/of/denied")) == ProblemKind::DENIED);
  CHECK(kindOf(root.make("/root/of/denied/x", true)) == ProblemKind::DENIED);
  CHECK(!std::filesystem::exists(root.dir.file("denied").cStr()));
}

TEST_CASE("a file, a link and a directory are removed; a link is not followed") {
  Root root;
  writeFile(root.dir.file("file"), "content");
  std::filesystem::create_directories(root.dir.file("tree/a/b").cStr());
  writeFile(root.dir.file("tree/a/b/file"), "content");
  KJ_SYSCALL(symlink("tree", root.dir.file("link").cStr()));
  CHECK(isDone(root.remove("/root/of/file")));
  CHECK(kindOf(root.remove("/root/of/file")) == ProblemKind::NO_SUCH_FILE);
  CHECK(isDone(root.remove("/root/of/link", true)));
  CHECK(std::filesystem::exists(root.dir.file("tree/a/b/file").cStr()));
  CHECK(kindOf(root.remove("/root/of/tree")) == ProblemKind::NOT_EMPTY);
  CHECK(isDone(root.remove("/root/of/tree", true)));
  CHECK(std::filesystem::is_empty(root.dir.path().cStr()));
  CHECK(kindOf(root.remove("/root/of")) == ProblemKind::PERMISSION);
}

TEST_CASE("of a tree everything that may be removed is, and the first that may not is told") {
  Root root;
  std::filesystem::create_directories(root.dir.file("tree/sub/denied").cStr());
  writeFile(root.dir.file("tree/sub/denied/key"), "content");
  for (int i = 0; i < 2000; ++i) writeFile(root.dir.file(kj::str("tree/file", i)), "");
  auto problem = KJ_ASSERT_NONNULL(root.remove("/root/of/tree", true));
  CHECK(problem.kind == ProblemKind::DENIED);
  CHECK(problem.detail == "/root/of/tree/sub/denied: denied by rule deny");
  CHECK(readFile(root.dir.file("tree/sub/denied/key")) == "content");
  CHECK(std::distance(std::filesystem::directory_iterator(root.dir.file("tree").cStr()), {}) == 1);
}
