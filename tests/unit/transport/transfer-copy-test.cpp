#include <doctest/doctest.h>

#include <chrono>

#include "tests/support/random-tree.h"
#include "tests/support/tree-picture.h"
#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;
using namespace postern::test;

namespace {

// On a file system of its own kind: the disk under /tmp, and memory.
std::vector<std::string> placesOfTests() {
  std::vector<std::string> places = {"/tmp"};
  if (access("/dev/shm", W_OK) == 0) places.push_back("/dev/shm");
  return places;
}

class Place {
 public:
  explicit Place(const std::string& in) : folder(kj::str(in.c_str(), "/postern-test-XXXXXX")) {
    KJ_ASSERT(mkdtemp(folder.begin()) != nullptr);
  }
  ~Place() noexcept(false) { std::filesystem::remove_all(folder.cStr()); }
  KJ_DISALLOW_COPY(Place);
  kj::String path(kj::StringPtr name) const { return kj::str(folder, "/", name); }
  kj::StringPtr root() const { return folder; }

 private:
  kj::String folder;
};

}  // namespace

TEST_CASE("a random tree arrives with everything that an archive copy promises") {
  for (auto& where : placesOfTests()) {
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      CAPTURE(where);
      CAPTURE(seed);
      Place place(where);
      makeRandomTree(place.path("tree"), {seed, 300, 120, seed == 1});
      Copy copy;
      copy.from(place.root(), "tree").as(place.root(), "copy").all();
      copy.source.verify = copy.destination.verify = seed % 2 == 0;
      copy.run();
      CHECK(copy.summary().failures == 0);
      auto expected = pictureOf(place.path("tree"), PictureOf::EVERYTHING);
      auto found = pictureOf(place.path("copy"), PictureOf::EVERYTHING);
      CHECK(differences(expected, found) == "");
      CHECK(copy.summary().files + copy.summary().directories == expected.size());
      CHECK(leftovers(place.root()).empty());

      // Once more, over what is there: the same again.
      Copy again;
      again.from(place.root(), "tree").as(place.root(), "copy").all().run();
      CHECK(again.summary().failures == 0);
      CHECK(differences(expected, pictureOf(place.path("copy"), PictureOf::EVERYTHING)) == "");
      CHECK(leftovers(place.root()).empty());
    }
  }
}

TEST_CASE("a random tree arrives without what is not asked for") {
  Place place("/tmp");
  makeRandomTree(place.path("tree"), {9, 200, 20, false});
  Copy copy;
  copy.from(place.root(), "tree").as(place.root(), "copy");
  copy.source.recursive = true;
  copy.run();
  auto expected = pictureOf(place.path("tree"), PictureOf::CONTENT);
  auto found = pictureOf(place.path("copy"), PictureOf::CONTENT);
  size_t fifos = expected.size() - found.size();
  CHECK(copy.summary().failures == fifos);
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::UNSUPPORTED);
  for (auto& each : found) CHECK(expected[each.first] == each.second);
}

TEST_CASE("the totals are announced first, and are what comes") {
  Place place("/tmp");
  makeRandomTree(place.path("tree"), {3, 50, 3, true});
  Copy copy;
  copy.from(place.root(), "tree").into(place.root()).all();
  KJ_SYSCALL(rename(place.path("tree").cStr(), place.path("source").cStr()));
  copy.tops.clear();
  copy.from(place.root(), "source");
  copy.tops[0].as = kj::str("sent");
  copy.run();
  auto totals = KJ_ASSERT_NONNULL(copy.making.totals);
  auto summary = copy.summary();
  CHECK(totals.files == summary.files);
  CHECK(totals.directories == summary.directories);
  CHECK(totals.bytes == summary.bytes);
  CHECK(totals.tops == 1);
  CHECK(differences(pictureOf(place.path("source"), PictureOf::EVERYTHING),
                    pictureOf(place.path("sent"), PictureOf::EVERYTHING)) == "");
}

TEST_CASE("mode and time of a file arrive whatever the umask is") {
  Place place("/tmp");
  writeFile(place.path("file"), "content", 0666);
  timespec times[] = {{0, UTIME_OMIT}, {-5, 123456789}};
  utimensat(AT_FDCWD, place.path("file").cStr(), times, 0);
  auto before = umask(0077);
  Copy copy;
  copy.from(place.root(), "file").as(place.root(), "copy").run();
  umask(before);
  CHECK(copy.summary().files == 1);
  struct stat status {};
  KJ_SYSCALL(stat(place.path("copy").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0666);
  CHECK(status.st_mtim.tv_sec == -5);
  CHECK(status.st_mtim.tv_nsec == 123456789);
}

TEST_CASE("several sources go into a directory, and a directory that is there keeps what it has") {
  Place place("/tmp");
  writeFile(place.path("one"), "1");
  KJ_SYSCALL(mkdir(place.path("two").cStr(), 0755));
  writeFile(place.path("two/inner"), "2");
  KJ_SYSCALL(mkdir(place.path("to").cStr(), 0755));
  KJ_SYSCALL(mkdir(place.path("to/two").cStr(), 0711));
  writeFile(place.path("to/two/mine"), "3");
  Copy copy;
  copy.from(place.root(), "one").from(place.root(), "two").into(place.path("to"));
  copy.source.recursive = true;
  copy.run();
  CHECK(copy.summary().files == 2);
  CHECK(readFile(place.path("to/one")) == "1");
  CHECK(readFile(place.path("to/two/inner")) == "2");
  CHECK(readFile(place.path("to/two/mine")) == "3");
  struct stat status {};
  KJ_SYSCALL(stat(place.path("to/two").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0711);
}

TEST_CASE("a top that is a directory itself is sent under the name that it is given") {
  Place place("/tmp");
  makeRandomTree(place.path("tree"), {5, 30, 2, false});
  Copy copy;
  copy.tops.add(SourceTop{folderAt(place.path("tree")), kj::str(), kj::str("dot"), kj::str("."), nullptr, false});
  copy.as(place.root(), "copy").all().run();
  CHECK(copy.summary().failures == 0);
  CHECK(differences(pictureOf(place.path("tree"), PictureOf::EVERYTHING),
                    pictureOf(place.path("copy"), PictureOf::EVERYTHING)) == "");
}

TEST_CASE("many small files cost little CPU time") {
  Place place(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  unsigned count = getenv("POSTERN_TEST_FULL") == nullptr ? 20000 : 100000;
  KJ_SYSCALL(mkdir(place.path("many").cStr(), 0755));
  auto content = bytesOf(4096);
  for (unsigned i = 0; i < count; ++i) {
    if (i % 1000 == 0) {
      KJ_SYSCALL(mkdir(place.path(kj::str("many/", i / 1000)).cStr(), 0755));
    }
    writeFile(place.path(kj::str("many/", i / 1000, "/file", i)), text(content));
  }
  Copy copy;
  copy.from(place.root(), "many").as(place.root(), "copy");
  copy.source.recursive = true;
  auto begin = std::chrono::steady_clock::now();
  copy.run();
  std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  CHECK(copy.summary().files == count);
  CHECK(differences(pictureOf(place.path("many"), PictureOf::CONTENT),
                    pictureOf(place.path("copy"), PictureOf::CONTENT)) == "");
  MESSAGE(count << " files of 4 KiB: " << wall.count() << " s, CPU of the source's opener " << copy.sourceSeconds
                << " s, of the destination's " << copy.destinationSeconds << " s");
}
