// A disk that is full, or fills up while it is written to.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>

#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;

namespace {

constexpr size_t DISK_BYTES = size_t(4) << 20;

// A file system of a few MiB, seen by this thread and those that it starts alone.
class SmallDisk {
 public:
  SmallDisk() {
    KJ_SYSCALL(mkdir(dir.file("disk").cStr(), 0755));
    KJ_SYSCALL(mkdir(dir.file("from").cStr(), 0755));
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0) return;
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    mounted = mount("tmpfs", path().cStr(), "tmpfs", 0, kj::str("size=", DISK_BYTES, ",nr_inodes=50").cStr()) == 0;
  }
  ~SmallDisk() noexcept(false) {
    if (mounted) umount2(path().cStr(), MNT_DETACH);
  }
  kj::String path() const { return dir.file("disk"); }
  TempDir dir;
  bool mounted = false;
};

// In a thread of its own, whose name space is gone with it.
void withSmallDisk(std::function<void(SmallDisk&)> body) {
  kj::Thread thread([&]() {
    SmallDisk disk;
    if (disk.mounted) {
      body(disk);
    } else {
      MESSAGE("skipped: needs root, to mount a small file system");
    }
  });
}

}  // namespace

TEST_CASE("what does not fit is refused before anything is made, with numbers") {
  withSmallDisk([](SmallDisk& disk) {
    for (int i = 0; i < 6; ++i) writeFile(disk.dir.file(kj::str("from/", i)), text(bytesOf(1 << 20)));
    Copy copy;
    copy.from(disk.dir.path(), "from").into(disk.path());
    copy.source.recursive = true;
    copy.run();
    CHECK(copy.refusal() == ProblemKind::NO_SPACE);
    CHECK(KJ_ASSERT_NONNULL(copy.sent).get<Problem>().detail == "needs 6 MiB, and 4 MiB are free at the destination");
    CHECK(std::filesystem::is_empty(disk.path().cStr()));
  });
}

TEST_CASE("more files than there is room for are refused before anything is made") {
  withSmallDisk([](SmallDisk& disk) {
    for (int i = 0; i < 60; ++i) writeFile(disk.dir.file(kj::str("from/", i)), "");
    Copy copy;
    copy.from(disk.dir.path(), "from").into(disk.path());
    copy.source.recursive = true;
    copy.run();
    CHECK(copy.refusal() == ProblemKind::NO_SPACE);
  });
}

TEST_CASE("a single larger file that does not fit is told before its bytes travel, and the old one stays") {
  withSmallDisk([](SmallDisk& disk) {
    writeFile(disk.dir.file("from/large"), text(bytesOf(6 << 20)));
    writeFile(kj::str(disk.path(), "/large"), "old");
    Copy copy;
    copy.from(disk.dir.file("from"), "large").into(disk.path()).run();
    CHECK(copy.failure().kind == ProblemKind::NO_SPACE);
    CHECK(copy.copied == 0);
    CHECK(readFile(kj::str(disk.path(), "/large")) == "old");
    CHECK(leftovers(disk.path()).empty());
  });
}

TEST_CASE("holes need no room") {
  withSmallDisk([](SmallDisk& disk) {
    for (auto name : {"from/large", "from/other"}) {
      writeFile(disk.dir.file(name), text(bytesOf(1000)));
      KJ_SYSCALL(truncate(disk.dir.file(name).cStr(), 20 << 20));
    }
    for (auto name : {"large", "other"}) {
      Copy copy;
      copy.from(disk.dir.file("from"), name).into(disk.path()).run();
      CHECK(copy.summary().failures == 0);
    }
    Copy copy;
    copy.from(disk.dir.path(), "from").into(disk.path());
    copy.source.recursive = true;
    copy.run();
    CHECK(copy.summary().failures == 0);
    CHECK(std::filesystem::file_size(kj::str(disk.path(), "/from/other").cStr()) == 20 << 20);
  });
}

TEST_CASE("a disk that fills up while small files are written costs those that do not fit, and no old file") {
  withSmallDisk([](SmallDisk& disk) {
    for (int i = 0; i < 30; ++i) writeFile(disk.dir.file(kj::str("from/", i)), text(bytesOf(50000, unsigned(i))));
    KJ_SYSCALL(mkdir(kj::str(disk.path(), "/from").cStr(), 0755));
    writeFile(kj::str(disk.path(), "/from/29"), "old");
    Copy copy;
    copy.from(disk.dir.path(), "from").into(disk.path());
    copy.source.recursive = true;
    // The directory comes first, when the space was looked at and nothing else was made.
    copy.making.onMade = [&](kj::StringPtr path) {
      if (path != "from") return;
      int raw = open(kj::str(disk.path(), "/hog").cStr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      kj::AutoCloseFd hog(raw);
      KJ_ASSERT(posix_fallocate(hog, 0, DISK_BYTES - 700000) == 0);
    };
    copy.run();
    CHECK(copy.summary().failures > 0);
    CHECK(copy.summary().files > 0);
    for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::NO_SPACE);
    auto content = readFile(kj::str(disk.path(), "/from/29"));
    CHECK((content == "old" || content == bytesOf(50000, 29)));
    CHECK(leftovers(disk.path()).empty());
  });
}

TEST_CASE("without a name for its links a tree is copied by named temporary files as well") {
  withSmallDisk([](SmallDisk& disk) {
    // Where /proc is covered there is no way to name a file that was made without one.
    if (mount("tmpfs", "/proc", "tmpfs", 0, nullptr) != 0) return;
    KJ_DEFER(umount2("/proc", MNT_DETACH));
    for (int i = 0; i < 10; ++i) writeFile(disk.dir.file(kj::str("from/", i)), text(bytesOf(100, unsigned(i))));
    KJ_SYSCALL(link(disk.dir.file("from/0").cStr(), disk.dir.file("from/link").cStr()));
    for (int round = 0; round < 2; ++round) {
      Copy copy;
      copy.from(disk.dir.path(), "from").into(disk.path()).all();
      copy.destination.noClobber = round == 1;
      copy.run();
      CHECK(copy.summary().failures == (round == 0 ? 0 : 11));
      CHECK(leftovers(disk.path()).empty());
    }
    for (int i = 0; i < 10; ++i) CHECK(readFile(kj::str(disk.path(), "/from/", i)) == bytesOf(100, unsigned(i)));
    CHECK(std::filesystem::hard_link_count(kj::str(disk.path(), "/from/link").cStr()) == 2);
  });
}
