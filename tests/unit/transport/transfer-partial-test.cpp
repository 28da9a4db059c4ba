// Larger files: going on from what is there, two transfers at one time, and movers that vanish.
#include <doctest/doctest.h>
#include <sys/file.h>

#include "tests/unit/transport/transfer-fixture.h"
#include "transport/transfer/new-file.h"
#include "transport/transfer/partial-file.h"

using namespace postern;
using namespace postern::transfer;

namespace {

constexpr size_t LARGE = size_t(3) << 20;

struct Here {
  TempDir dir;
  Here() {
    KJ_SYSCALL(mkdir(dir.file("to").cStr(), 0755));
    writeFile(dir.file("large"), text(bytesOf(LARGE)));
  }
  kj::String to(kj::StringPtr name) const { return kj::str(dir.path(), "/to/", name); }
  kj::String partial() const { return to(partialName("large")); }
  void prepare(Copy& copy) const { copy.from(dir.path(), "large").into(to("")); }
};

}  // namespace

TEST_CASE("the name of a partial file is a component, the same each time, and different for different names") {
  for (auto name : {std::string("a"), std::string(255, 'x'), std::string(254, 'x'), std::string("\xff\n")}) {
    auto partial = partialName(text(name));
    CHECK(isComponent(partial.asBytes()));
    CHECK(partial == partialName(text(name)));
    CHECK(partial != text(name));
  }
  CHECK(partialName(text(std::string(255, 'x'))) != partialName(text(std::string(254, 'x') + "y")));
}

TEST_CASE("a transfer whose mover vanishes in a larger file leaves the old file and a partial one; the next goes on") {
  Here here;
  writeFile(here.to("large"), "old");
  {
    Copy copy;
    here.prepare(copy);
    copy.relay.vanishInFile = true;
    copy.run();
    CHECK(copy.refusal() == ProblemKind::FAILED);
    CHECK(readFile(here.to("large")) == "old");
    struct stat status {};
    KJ_SYSCALL(stat(here.partial().cStr(), &status));
    CHECK((status.st_mode & 07777) == 0600);
    CHECK(size_t(status.st_size) == LARGE / 2);
  }
  {
    Copy copy;
    here.prepare(copy);
    copy.destination.resume = true;
    copy.run();
    CHECK(copy.summary().files == 1);
    CHECK(copy.resumed == 1);
    CHECK(copy.copied <= LARGE / 2 + (128 << 10));
  }
  CHECK(readFile(here.to("large")) == bytesOf(LARGE));
  CHECK(leftovers(here.dir.path()).empty());
}

TEST_CASE("without --resume, what an interrupted transfer left is thrown away") {
  Here here;
  writeFile(here.partial(), text(bytesOf(LARGE, 7)), 0600);
  Copy copy;
  here.prepare(copy);
  copy.run();
  CHECK(copy.summary().files == 1);
  CHECK(copy.resumed == 0);
  CHECK(copy.copied == LARGE);
  CHECK(readFile(here.to("large")) == bytesOf(LARGE));
  CHECK(leftovers(here.dir.path()).empty());
}

TEST_CASE("a file that its mover keeps is told as interrupted") {
  Here here;
  Copy copy;
  here.prepare(copy);
  copy.relay.keepFirst = true;
  copy.run();
  CHECK(copy.failure().kind == ProblemKind::FAILED);
  CHECK(leftovers(here.dir.path()).size() == 1);
}

TEST_CASE("two transfers to one file do not mix: the second is told that it is busy") {
  Here here;
  auto held = openPartial(folderAt(here.to("")), partialName("large"), Leftover::EMPTY);
  REQUIRE(held.is<PartialFile>());
  Copy copy;
  here.prepare(copy);
  copy.destination.resume = true;
  copy.run();
  CHECK(copy.failure().kind == ProblemKind::BUSY);
  CHECK(std::filesystem::exists(here.partial().cStr()));
}

TEST_CASE("a small file that replaces one does not disturb a transfer to the same name either") {
  Here here;
  writeFile(here.dir.file("small"), "new");
  writeFile(here.to("small"), "old");
  auto held = openPartial(folderAt(here.to("")), partialName("small"), Leftover::EMPTY);
  REQUIRE(held.is<PartialFile>());
  {
    Copy copy;
    copy.from(here.dir.path(), "small").into(here.to("")).run();
    CHECK(copy.failure().kind == ProblemKind::BUSY);
    CHECK(readFile(here.to("small")) == "old");
  }
  held = problem(ProblemKind::FAILED, kj::str());
  Copy copy;
  copy.from(here.dir.path(), "small").into(here.to("")).run();
  CHECK(copy.summary().files == 1);
  CHECK(readFile(here.to("small")) == "new");
  CHECK(leftovers(here.dir.path()).empty());
}

// T86
TEST_CASE("a partial name that leads elsewhere, or has other names, is not written to") {
  Here here;
  writeFile(here.dir.file("victim"), "precious", 0600);
  SUBCASE("a symbolic link") {
    KJ_SYSCALL(symlink(here.dir.file("victim").cStr(), here.partial().cStr()));
  }
  SUBCASE("a hard link") {
    KJ_SYSCALL(link(here.dir.file("victim").cStr(), here.partial().cStr()));
  }
  SUBCASE("a FIFO") {
    KJ_SYSCALL(mkfifo(here.partial().cStr(), 0600));
  }
  Copy copy;
  here.prepare(copy);
  copy.destination.resume = true;
  copy.run();
  CHECK(copy.summary().files == 1);
  CHECK(copy.resumed == 0);
  CHECK(readFile(here.to("large")) == bytesOf(LARGE));
  CHECK(readFile(here.dir.file("victim")) == "precious");
  CHECK(leftovers(here.dir.path()).empty());
}

// T86
TEST_CASE("a file with the name of a partial one is not brought, and what is written under that name stays itself") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("from").cStr(), 0755));
  writeFile(here.dir.file("from/large"), text(bytesOf(LARGE)));
  writeFile(kj::str(here.dir.file("from/"), partialName("large")), "small");
  writeFile(kj::str(here.dir.file("from/"), partialName(partialName("large"))), text(bytesOf(LARGE, 9)));
  Copy copy;
  copy.from(here.dir.path(), "from").into(here.to(""));
  copy.source.recursive = true;
  copy.run();
  CHECK(copy.summary().failures == 2);
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::UNSUPPORTED);
  CHECK(readFile(here.to("from/large")) == bytesOf(LARGE));
  CHECK(leftovers(here.to("")).empty());
}

// T86
TEST_CASE("a file whose temporary name somebody gave to another one does not get that one's content") {
  Here here;
  writeFile(here.to("large"), "old");
  FileMaker maker(Existing::REPLACE);
  auto folder = kj::refcounted<DestinationFolder>();
  folder->descriptor = folderAt(here.to(""));
  {
    auto opened = maker.open(*folder, "large", IfInterrupted::KEPT, false);
    REQUIRE(opened.is<NewFile>());
    KJ_SYSCALL(unlink(here.partial().cStr()));
    writeFile(here.partial(), "another's");
    auto problem = maker.place(opened.get<NewFile>());
    CHECK(KJ_ASSERT_NONNULL(problem).kind == ProblemKind::CHANGED);
  }
  CHECK(readFile(here.to("large")) == "old");
  CHECK(readFile(here.partial()) == "another's");
}

TEST_CASE("what was interrupted when it had its last mode already is gone on with, be it one that may not be opened") {
  if (geteuid() != 0) return;  // who is somebody else for a moment
  for (mode_t mode : {0444, 0200, 0}) {
    Here here;
    KJ_SYSCALL(chmod(here.to("").cStr(), 0777));
    writeFile(here.partial(), "left", mode);
    KJ_SYSCALL(chown(here.partial().cStr(), 65534, 65534));
    auto folder = folderAt(here.to(""));
    KJ_SYSCALL(seteuid(65534));
    KJ_DEFER(KJ_SYSCALL(seteuid(0)));
    {
      auto opened = openPartial(folder, partialName("large"), Leftover::USE);
      REQUIRE(opened.is<PartialFile>());
      CHECK(opened.get<PartialFile>().resumed);
    }
    struct stat status {};
    KJ_SYSCALL(fstatat(folder, partialName("large").cStr(), &status, 0));
    CHECK((status.st_mode & 07777) == 0600);
    KJ_SYSCALL(fchmodat(folder, partialName("large").cStr(), mode, 0));
    CHECK(clearPartial(folder, partialName("large")) == 0);
  }
}

TEST_CASE("a directory that has a partial file's name is a problem of that entry") {
  Here here;
  KJ_SYSCALL(mkdir(here.partial().cStr(), 0755));
  Copy copy;
  here.prepare(copy);
  copy.run();
  CHECK(copy.failure().kind == ProblemKind::IS_DIRECTORY);
}

TEST_CASE("an unchanged file is left as it is, but for what describes it") {
  Here here;
  writeFile(here.to("large"), text(bytesOf(LARGE)), 0600);
  struct stat before {};
  KJ_SYSCALL(stat(here.to("large").cStr(), &before));
  Copy copy;
  here.prepare(copy);
  copy.run();
  CHECK(copy.summary().files == 1);
  CHECK(copy.summary().unchanged == 1);
  struct stat after {
  }, source{};
  KJ_SYSCALL(stat(here.to("large").cStr(), &after));
  KJ_SYSCALL(stat(here.dir.file("large").cStr(), &source));
  CHECK(after.st_ino == before.st_ino);
  CHECK((after.st_mode & 07777) == 0644);
  CHECK(after.st_mtim.tv_sec == source.st_mtim.tv_sec);
  CHECK(after.st_mtim.tv_nsec == source.st_mtim.tv_nsec);
  CHECK(leftovers(here.dir.path()).empty());
}

// T82
TEST_CASE("a mover that vanishes after any message leaves each name as it was or whole, and nothing beside it") {
  TempDir dir;
  auto from = dir.file("from");
  KJ_SYSCALL(mkdir(from.cStr(), 0755));
  for (auto name : {"a", "b", "c"}) writeFile(kj::str(from, "/", name), "new");
  writeFile(kj::str(from, "/large"), text(bytesOf(200000)));
  KJ_SYSCALL(mkdir(kj::str(from, "/folder").cStr(), 0755));
  writeFile(kj::str(from, "/folder/d"), "new");
  for (uint64_t after = 0;; ++after) {
    CAPTURE(after);
    auto to = dir.file("to");
    KJ_SYSCALL(mkdir(to.cStr(), 0755));
    KJ_SYSCALL(mkdir(kj::str(to, "/from").cStr(), 0755));
    for (auto name : {"a", "large"}) writeFile(kj::str(to, "/from/", name), "old");
    Copy copy;
    copy.from(dir.path(), "from").into(to).all();
    copy.relay.vanishAfter = after;
    copy.run();
    CHECK(leftovers(to).empty());
    for (auto name : {"a", "b", "c", "folder/d"}) {
      auto content = readFile(kj::str(to, "/from/", name));
      bool asItWas = content == (kj::StringPtr(name) == "a" ? "old" : "");
      CHECK((asItWas || content == "new"));
    }
    auto large = readFile(kj::str(to, "/from/large"));
    CHECK((large == "old" || large == bytesOf(200000)));
    std::filesystem::remove_all(to.cStr());
    if (copy.forwarded <= after) {
      CHECK(copy.summary().failures == 0);
      break;
    }
    CHECK(copy.refusal() == ProblemKind::FAILED);
  }
}
