#include "guest-agent/info/space-survey.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "guest-agent/info/mounts.h"
#include "guest-agent/info/probes.h"

namespace postern::guest::test {
namespace {

kj::Array<Mount> mountsNamed(kj::ArrayPtr<const kj::StringPtr> names) {
  return KJ_MAP(name, names) {
    return Mount{kj::str(name), kj::str("ext4"), kj::str("/dev/x"), name.startsWith("/net")};
  };
}

// As a dead network file system: it never answers for paths with "dead", and fails for those with "denied".
kj::Maybe<Space> fakeSpace(kj::StringPtr path) {
  if (path.findFirst('!') != nullptr) {
    for (;;) pause();
  }
  if (path.findFirst('?') != nullptr) return nullptr;
  return Space{1000 + path.size(), 500};
}

TEST_CASE("file systems that answer are delivered, in order, while one that hangs is marked as stalled") {
  auto mounts = mountsNamed({"/", "/net/dead!", "/home", "/denied?", "/net/alive"});
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto spaces = surveySpace(mounts, fakeSpace, 800 * kj::MILLISECONDS);
  auto took = kj::systemPreciseMonotonicClock().now() - begin;
  CHECK(took < 3 * kj::SECONDS);
  REQUIRE(spaces.size() == 5);
  REQUIRE(spaces[0].is<Space>());
  CHECK(spaces[0].get<Space>().totalBytes == 1001);
  CHECK(spaces[1].is<Stalled>());
  CHECK(spaces[2].get<Space>().totalBytes == 1005);
  CHECK(spaces[3].is<NotReadable>());
  CHECK(spaces[4].is<Space>());
}

TEST_CASE("seven that hang hold up nobody else; with every worker stuck the local ones are known still") {
  for (unsigned hanging : {7u, 20u}) {
    kj::Vector<Mount> mounts;
    for (unsigned i = 0; i < hanging; ++i) {
      mounts.add(Mount{kj::str("/net/dead!", i), kj::str("nfs4"), kj::str("server:/x"), true});
    }
    for (unsigned i = 0; i < 100; ++i)
      mounts.add(Mount{kj::str("/disk", i), kj::str("ext4"), kj::str("/dev/x"), false});
    auto spaces = surveySpace(mounts, fakeSpace, 1500 * kj::MILLISECONDS);
    for (unsigned i = 0; i < spaces.size(); ++i) CHECK(spaces[i].is<Stalled>() == (i < hanging));
  }
}

TEST_CASE("a worker that crashes costs the file system that it asked, and no other") {
  auto mounts = mountsNamed({"/a", "/crash", "/b", "/c"});
  auto spaces = surveySpace(
      mounts,
      [](kj::StringPtr path) -> kj::Maybe<Space> {
        if (path == "/crash") _exit(9);
        return Space{1, 1};
      },
      1 * kj::SECONDS);
  CHECK(spaces[0].is<Space>());
  CHECK(spaces[1].is<Stalled>());
  CHECK(spaces[2].is<Space>());
  CHECK(spaces[3].is<Space>());
}

TEST_CASE("no file system at all is no survey") {
  CHECK(surveySpace(nullptr, fakeSpace).size() == 0);
}

constexpr kj::StringPtr MOUNTINFO =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "23 22 0:21 / /proc rw - proc proc rw\n"
    "24 22 0:22 / /sys rw - sysfs sysfs rw\n"
    "25 22 0:23 / /run rw - tmpfs tmpfs rw\n"
    "26 22 8:2 / /srv/with\\040space\\012and\\134more rw shared:3 master:4 - xfs /dev/sdb rw\n"
    "27 22 0:40 / /mnt/share rw - nfs4 server:/export rw\n"
    "28 22 8:1 /sub /mnt/bind rw - ext4 /dev/sda1 rw\n"
    "29 22 0:50 / /home/eve/fuse rw - fuse.sshfs eve@host: rw\n"
    "30 22 0:60 / /var/lib/docker/overlay2/x rw - overlay overlay rw\n"
    "31 22 8:3 / /over rw - ext4 /dev/sdc rw\n"
    "32 31 8:4 / /over rw - btrfs /dev/sdd rw\n"
    "33 22 0:70 / /misc rw - autofs systemd-1 rw\n"
    "garbage\n"
    "34 22 8:9 / relative rw - ext4 /dev/x rw\n"
    "35 22 8:9\n"
    "36 22 8:9 / /short rw - ext4\n"
    "37 22 8:10 / /last rw - vfat /dev/sde rw"_kj;

TEST_CASE("mounts: data only, each device once, the upper of two, escapes undone, what is not understood left out") {
  auto mounts = parseMounts(MOUNTINFO);
  auto points = KJ_MAP(mount, mounts) {
    return kj::str(mount.mountPoint);
  };
  // The last line has no end: it was cut.
  CHECK((kj::strArray(points, "|") == "/|/srv/with space\nand\\more|/mnt/share|/home/eve/fuse|/over"));
  CHECK_FALSE(mounts[0].remote);
  CHECK(mounts[2].remote);
  CHECK((mounts[2].source == "server:/export"));
  CHECK(mounts[3].remote);
  CHECK((mounts[4].type == "btrfs"));
}

TEST_CASE("mounts: a memory file system is shown where it is the root, and 128 are enough") {
  CHECK(parseMounts("1 0 0:1 / / rw - rootfs none rw\n"_kj).size() == 1);
  CHECK(parseMounts("1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /tmp rw - tmpfs t rw\n"_kj).size() == 1);
  kj::Vector<kj::String> lines;
  for (int i = 0; i < 1000; ++i) lines.add(kj::str(i, " 1 9:", i, " / /m", i, " rw - ext4 /dev/x rw\n"));
  CHECK(parseMounts(kj::strArray(lines, "")).size() == MAX_FILE_SYSTEMS);
  CHECK(parseMounts("").size() == 0);
}

TEST_CASE("mounts: any cut and any changed byte of the file gives something, and never more than is there") {
  for (size_t end = 0; end < MOUNTINFO.size(); ++end)
    CHECK(parseMounts(kj::heapString(MOUNTINFO.slice(0, end))).size() <= 6);
  auto text = kj::heapString(MOUNTINFO);
  for (size_t i = 0; i < text.size(); ++i) {
    char before = text[i];
    for (char c : {' ', '\\', '\n', '\xff', '-'}) {
      text[i] = c;
      CHECK(parseMounts(text).size() <= 16);
    }
    text[i] = before;
  }
}

}  // namespace
}  // namespace postern::guest::test
