// What a copy reads and writes here: scp's rules, and what a name here turns out to be.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cli/local-source.h"
#include "host/cli/local-target.h"
#include "host/cli/private-folder.h"
#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::cli;
using namespace postern::test;
using transfer::ProblemKind;

namespace {

// A folder with a file "f", a directory "d" with "d/in", and links to both.
struct Here {
  TemporaryFolder folder;
  kj::AutoCloseFd handle{open(folder.path("").cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  Here() {
    make("f");
    KJ_SYSCALL(mkdirat(handle, "d", 0755));
    make("d/in");
    KJ_SYSCALL(symlinkat("f", handle, "to-f"));
    KJ_SYSCALL(symlinkat("d", handle, "to-d"));
    KJ_SYSCALL(symlinkat("nothing", handle, "to-nothing"));
  }
  void make(const char* name) { kj::AutoCloseFd(openat(handle, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)); }

  LocalSources sources(std::initializer_list<kj::StringPtr> words, bool recursive = true, bool archive = false) {
    kj::Vector<FilePath> paths;
    for (auto word : words) paths.add(parseFilePath(word).get<FilePath>().clone());
    return openSources(handle, paths, recursive, archive);
  }
  kj::String problem(kj::StringPtr word, bool recursive = true, bool archive = false) {
    auto opened = sources({word}, recursive, archive);
    CHECK(opened.tops.empty());
    REQUIRE(opened.problems.size() == 1);
    return kj::str(transfer::word(opened.problems[0].problem.kind), ": ", opened.problems[0].problem.detail);
  }
  auto target(kj::StringPtr word, const TargetWishes& wishes) {
    return openTarget(handle, parseFilePath(word).get<FilePath>(), wishes);
  }
  // "NAME" in the folder that was chosen, by a file of it.
  kj::String place(kj::StringPtr word, const TargetWishes& wishes, const char* holds) {
    auto opened = target(word, wishes);
    if (opened.is<transfer::Problem>()) return kj::str(opened.get<transfer::Problem>().detail);
    auto& place = opened.get<LocalPlace>();
    CHECK(faccessat(place.folder, holds, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
    return kj::str(place.name);
  }
};

}  // namespace

TEST_CASE("a source is a name in an opened directory, whatever stands before and after it") {
  Here here;
  for (kj::StringPtr word : {"f", "./f", "d/../f"}) {
    auto opened = here.sources({word});
    REQUIRE(opened.tops.size() == 1);
    CHECK_TEXT(opened.tops[0].name, "f");
    CHECK_TEXT(opened.tops[0].as, "f");
    CHECK_TEXT(opened.tops[0].shown, word);
    CHECK(!opened.intoDirectory);
  }
  auto absolute = here.folder.path("d/");
  auto opened = here.sources({absolute});
  REQUIRE(opened.tops.size() == 1);
  CHECK_TEXT(opened.tops[0].as, "d");
}

TEST_CASE("a link that was named is followed; with -a it is copied as what it is, unless a slash follows it") {
  Here here;
  CHECK(here.sources({"to-f"}).tops[0].follow);
  CHECK(!here.sources({"to-f"}, true, true).tops[0].follow);
  CHECK(here.sources({"to-d/"}, true, true).tops[0].follow);
  CHECK_TEXT(here.problem("to-nothing"), "no-such-file: no such file or directory");
  CHECK(here.sources({"to-nothing"}, true, true).tops.size() == 1);
}

TEST_CASE("a directory without -r, a file with a slash, and what is not there, are told by name") {
  Here here;
  CHECK_TEXT(here.problem("d", false), "is-directory: is a directory (use -r)");
  CHECK_TEXT(here.problem("to-d", false), "is-directory: is a directory (use -r)");
  CHECK_TEXT(here.problem(".", false), "is-directory: is a directory (use -r)");
  CHECK_TEXT(here.problem("f/"), "not-directory: is not a directory");
  CHECK_TEXT(here.problem("f/x"), "not-directory: is not a directory");
  CHECK_TEXT(here.problem("x"), "no-such-file: no such file or directory");
  CHECK_TEXT(here.problem("x/y"), "no-such-file: no such file or directory");
  CHECK(here.problem(kj::str(kj::repeat('x', 256))).startsWith("name-too-long: "));
}

TEST_CASE("a source that this user may not reach names the user") {
  if (geteuid() != 0) return;  // nobody else can become nobody
  Here here;
  KJ_SYSCALL(mkdirat(here.handle, "closed", 0700));
  chmod(here.folder.path("").cStr(), 0755);
  KJ_SYSCALL(seteuid(65534));
  auto text = here.problem("closed/x");
  KJ_SYSCALL(seteuid(0));
  CHECK(text.startsWith("permission: "));
}

TEST_CASE("'.' is what is in the directory, and needs a directory to go to") {
  Here here;
  auto opened = here.sources({"d/."});
  REQUIRE(opened.tops.size() == 1);
  CHECK_TEXT(opened.tops[0].as, "in");
  CHECK_TEXT(opened.tops[0].shown, "d/in");
  CHECK(opened.intoDirectory);
  CHECK(here.sources({"."}).tops.size() == 5);
}

TEST_CASE("two sources of one name would become one file: the second is refused, the others go") {
  Here here;
  here.make("d/f");
  auto opened = here.sources({"f", "d/f", "d/in"});
  CHECK(opened.tops.size() == 2);
  REQUIRE(opened.problems.size() == 1);
  CHECK_TEXT(opened.problems[0].path, "d/f");
  CHECK_TEXT(opened.problems[0].problem.detail, "has the same name as f, and would take its place");
}

TEST_CASE("a directory that is there is gone into; what is not there gets its name where it shall be") {
  Here here;
  CHECK_TEXT(here.place("d", {"x"}, "in"), "x");
  CHECK_TEXT(here.place("d/", {"x", true}, "in"), "x");
  CHECK_TEXT(here.place("to-d", {"x"}, "in"), "x");
  CHECK_TEXT(here.place(".", {"x"}, "d"), "x");
  CHECK_TEXT(here.place("new", {"x"}, "d"), "new");
  CHECK_TEXT(here.place("d/new", {"x"}, "in"), "new");
  CHECK_TEXT(here.place("f", {"x"}, "d"), "f");
}

TEST_CASE("a link to a file is followed, and one to nothing is refused") {
  Here here;
  KJ_SYSCALL(symlinkat("../f", here.handle, "d/up"));
  CHECK_TEXT(here.place("d/up", {"x"}, "to-f"), "f");
  CHECK_TEXT(here.place("to-nothing", {"x"}, "f"), "is a symbolic link to nothing");
}

TEST_CASE("what must be a directory and is none is told") {
  Here here;
  CHECK_TEXT(here.place("f", {"x", true}, ""), "is not a directory");
  CHECK_TEXT(here.place("f/", {"x", true}, ""), "is not a directory");
  CHECK_TEXT(here.place("new", {"x", true}, ""), "no such directory; make it first");
  CHECK_TEXT(here.place("no/new", {"x"}, ""), "its directory is not there");
  CHECK_TEXT(here.place("f/new", {"x"}, ""), "is not a directory");
}

TEST_CASE("the content of a directory goes into the destination itself") {
  Here here;
  CHECK_TEXT(here.place("d", {"www", false, true}, "f"), "d");
  CHECK_TEXT(here.place("d", {""}, "f"), "d");  // the root of a guest has no name
  CHECK_TEXT(here.place("/", {""}, ""), "cannot be replaced");
}

TEST_CASE("a device or a FIFO is written to and never replaced; a socket is refused") {
  Here here;
  CHECK(here.target("/dev/null", {"x"}).is<kj::AutoCloseFd>());
  KJ_SYSCALL(mkfifoat(here.handle, "fifo", 0600));
  CHECK(here.target("fifo", {"x"}).is<transfer::Problem>());  // nobody reads it
  kj::AutoCloseFd reader(openat(here.handle, "fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  CHECK(here.target("fifo", {"x"}).is<kj::AutoCloseFd>());
  KJ_SYSCALL(mknodat(here.handle, "socket", S_IFSOCK | 0600, 0));
  CHECK_TEXT(here.place("socket", {"x"}, ""), "is neither a file nor a directory");
}

TEST_CASE("a private folder goes with everything in it, and with nothing that is linked from it") {
  Here here;
  kj::String path;
  {
    PrivateFolder folder(here.folder.path(""));
    path = kj::str(folder.path());
    struct stat status {};
    KJ_SYSCALL(stat(path.cStr(), &status));
    CHECK((status.st_mode & 07777) == 0700);
    auto inside = folder.open();
    KJ_SYSCALL(mkdirat(inside, "closed", 0700));
    KJ_SYSCALL(mkdirat(inside, "closed/deeper", 0700));
    kj::AutoCloseFd(openat(inside, "closed/deeper/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0));
    KJ_SYSCALL(symlinkat("../d", inside, "link"));
    KJ_SYSCALL(fchmodat(inside, "closed/deeper", 0, 0));
    KJ_SYSCALL(fchmodat(inside, "closed", 0, 0));
  }
  CHECK(access(path.cStr(), F_OK) != 0);
  CHECK(access(here.folder.path("d/in").cStr(), F_OK) == 0);
}
