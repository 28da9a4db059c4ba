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

// T81
TEST_CASE("a file that becomes a symbolic link after it was counted is not followed") {
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

TEST_CASE("a directory that becomes a symbolic link after it was counted is not entered") {
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

TEST_CASE("a directory at the destination that is swapped for a link is not written through") {
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

TEST_CASE("a file that vanishes after it was counted, and one that takes its place, do not stop the rest") {
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

TEST_CASE("directories that appear below what was counted are told as such, and are no breach") {
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

// T85
TEST_CASE("a file that is written to while it is read is a problem, or arrives in one version") {
  Here here;
  constexpr unsigned BLOCKS = 500;
  // Each block says its version: the writer goes over them from the first to the last, again and again.
  auto block = [](unsigned version) { return kj::str(1000000 + version, std::string(93, '.').c_str()); };
  {
    std::string first;
    for (unsigned i = 0; i < BLOCKS; ++i) first += block(0).cStr();
    writeFile(here.from("file"), text(first));
  }
  unsigned written = 0, whole = 0;
  for (int i = 0; i < 30; ++i) {
    std::atomic<bool> over{false};
    Copy copy;
    kj::Maybe<kj::Own<kj::Thread>> writer;
    here.copy(copy, [&]() {
      writer = kj::heap<kj::Thread>([&]() {
        kj::AutoCloseFd fd(open(here.from("file").cStr(), O_WRONLY | O_CLOEXEC));
        for (; !over; ++written) {
          auto bytes = block(1 + written / BLOCKS);
          KJ_ASSERT(pwrite(fd, bytes.begin(), 100, written % BLOCKS * 100) == 100);
          if (written % 50 == 0) usleep(i % 3 == 0 ? 30000 : 100);
        }
      });
    });
    over = true;
    writer = nullptr;
    auto failures = copy.summary().failures;
    REQUIRE(failures <= 1);
    if (failures == 1) {
      CHECK(copy.failure().kind == ProblemKind::CHANGED);
      continue;
    }
    ++whole;
    auto content = readFile(here.to("from/file"));
    REQUIRE(content.size() == BLOCKS * 100);
    unsigned steps = 0;
    for (size_t at = 100; at < content.size(); at += 100) {
      int step = atoi(content.substr(at - 100, 7).c_str()) - atoi(content.substr(at, 7).c_str());
      CHECK((step == 0 || step == 1));
      steps += unsigned(step);
    }
    CHECK(steps <= 1);
  }
  MESSAGE(whole << " of 30 copies were of one version, the others were told as changed");
}

TEST_CASE("a larger file that is cut off while it is copied is told, and the old one stays") {
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
