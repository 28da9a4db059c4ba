// What changes, vanishes or is swapped while a transfer is under way. The listener is called after everything was
// counted, and before anything is read: there the tests change the tree.
#include <doctest/doctest.h>

#include <atomic>

#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;

namespace {

struct Here {
  TempDir dir;
  Here() {
    KJ_SYSCALL(mkdir(dir.file("from").cStr(), 0755));
    KJ_SYSCALL(mkdir(dir.file("to").cStr(), 0755));
  }
  kj::String from(kj::StringPtr name) const { return kj::str(dir.path(), "/from/", name); }
  kj::String to(kj::StringPtr name) const { return kj::str(dir.path(), "/to/", name); }
  void copy(Copy& copy, std::function<void()> meanwhile) const {
    copy.from(dir.path(), "from").into(to("")).all();
    copy.making.onAnnounced = meanwhile;
    copy.run();
  }
};

}  // namespace

TEST_CASE("A file that becomes a symbolic link after it was counted is not followed") {
  Here here;
  writeFile(here.dir.file("secret"), "secret");
  writeFile(here.from("file"), "content");
  Copy copy;
  here.copy(copy, [&]() {
    unlink(here.from("file").cStr());
    KJ_SYSCALL(symlink("../secret", here.from("file").cStr()));
  });
  CHECK(readFile(here.to("from/file")) != "secret");
  CHECK(!std::filesystem::exists(here.dir.file("to/secret").cStr()));
}

TEST_CASE("A directory that becomes a symbolic link after it was counted is not entered") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("other").cStr(), 0755));
  writeFile(here.dir.file("other/secret"), "secret");
  KJ_SYSCALL(mkdir(here.from("folder").cStr(), 0755));
  Copy copy;
  here.copy(copy, [&]() {
    rmdir(here.from("folder").cStr());
    KJ_SYSCALL(symlink(here.dir.file("other").cStr(), here.from("folder").cStr()));
  });
  CHECK(!std::filesystem::is_directory(std::filesystem::symlink_status(here.to("from/folder").cStr())));
}

TEST_CASE("A directory at the destination that is swapped for a link is not written through") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("outside").cStr(), 0755));
  KJ_SYSCALL(mkdir(here.from("folder").cStr(), 0755));
  writeFile(here.from("folder/file"), "content");
  KJ_SYSCALL(mkdir(here.to("from").cStr(), 0755));
  KJ_SYSCALL(symlink(here.dir.file("outside").cStr(), here.to("from/folder").cStr()));
  Copy copy;
  here.copy(copy, []() {});
  CHECK(copy.summary().failures == 2);
  CHECK(std::filesystem::is_empty(here.dir.file("outside").cStr()));
}

TEST_CASE("A file that vanishes after it was counted, and one that takes its place, do not stop the rest") {
  Here here;
  for (auto name : {"a", "b", "c"}) writeFile(here.from(name), "content");
  Copy copy;
  here.copy(copy, [&]() {
    unlink(here.from("b").cStr());
    KJ_SYSCALL(mkfifo(here.from("b").cStr(), 0644));
    writeFile(here.from("d"), "new");
  });
  CHECK(copy.summary().failures <= 1);
  for (auto name : {"a", "c"}) CHECK(readFile(here.to(kj::str("from/", name))) == "content");
}

TEST_CASE("Directories that appear below what was counted are told as such, and are no breach") {
  Here here;
  KJ_SYSCALL(mkdir(here.from("a").cStr(), 0755));
  writeFile(here.from("z"), "content");
  Copy copy;
  here.copy(copy, [&]() {
    std::filesystem::create_directories(here.from("a/b/c/d").cStr());
    std::filesystem::create_directories(here.from("b/c").cStr());
  });
  CHECK(copy.summary().failures == 2);
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::CHANGED);
  CHECK(readFile(here.to("from/z")) == "content");
}

TEST_CASE("A file that is written to while it is read is a problem, or arrives in one version") {
  Here here;
  writeFile(here.from("file"), text(bytesOf(50000, 1)));
  for (int i = 0; i < 20; ++i) {
    std::atomic<bool> over{false};
    Copy copy;
    kj::Maybe<kj::Own<kj::Thread>> writer;
    here.copy(copy, [&]() {
      writer = kj::heap<kj::Thread>([&]() {
        kj::AutoCloseFd fd(open(here.from("file").cStr(), O_WRONLY | O_CLOEXEC));
        for (unsigned seed = 2; !over; ++seed) {
          auto content = bytesOf(50000, seed);
          for (size_t at = 0; at < content.size() && !over; at += 1000) {
            KJ_ASSERT(pwrite(fd, content.data() + at, 1000, off_t(at)) == 1000);
          }
        }
      });
    });
    over = true;
    writer = nullptr;
    auto failures = copy.summary().failures;
    CHECK(failures <= 1);
    if (failures == 1) CHECK(copy.failure().kind == ProblemKind::CHANGED);
  }
}

TEST_CASE("A larger file that is cut off while it is copied is told, and the old one stays") {
  Here here;
  writeFile(here.from("file"), text(bytesOf(5 << 20)));
  KJ_SYSCALL(mkdir(here.to("from").cStr(), 0755));
  writeFile(here.to("from/file"), "old");
  Copy copy;
  copy.relay.cutSource = true;  // as a mover finds it
  here.copy(copy, []() {});
  CHECK(copy.failure().kind == ProblemKind::CHANGED);
  CHECK(readFile(here.to("from/file")) == "old");
  CHECK(leftovers(here.dir.path()).empty());
}
