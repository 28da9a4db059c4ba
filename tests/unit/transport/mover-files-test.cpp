#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

using namespace lab;

constexpr size_t MIB = size_t(1) << 20;

// Blocks that the file takes on the disk.
uint64_t allocated(int fd) {
  struct stat stats;
  KJ_SYSCALL(fstat(fd, &stats));
  return uint64_t(stats.st_blocks) * 512;
}

struct Copy {
  Commit commit;
  uint64_t sent;  // content that travelled
};

// One large file through both movers, to an end that is well.
Copy copyFile(MoverLab& lab, int from, int to, const MoverOptions& options = {}, kj::Maybe<int> base = nullptr,
              bool resumed = false, bool wantsBase = false) {
  auto sourceEnd = lab.startSource(options);
  auto destinationEnd = lab.startDestination(options);
  lab.announce();
  struct stat stats;
  KJ_SYSCALL(fstat(from, &stats));
  lab.sendFile("file", from, uint64_t(stats.st_size), wantsBase);
  lab.openFile(to, base, resumed);
  auto commit = lab.awaitCommit();
  lab.finish(sourceEnd, destinationEnd);
  CHECK(lab.source->contentBytes() == lab.destination->contentBytes());
  return {kj::mv(commit), lab.source->contentBytes()};
}

TEST_CASE("a large file arrives byte for byte") {
  MoverLab lab;
  auto content = lab.bytes(5 * MIB + 12345);
  auto from = lab.fileOf("from", content);
  auto to = lab.emptyFile("to");
  auto copy = copyFile(lab, from, to);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK(!copy.commit.synced);
  CHECK(copy.sent == content.size());
  CHECK((lab.contentOf(to) == content));
  CHECK(lab.sourceGuard.paced == content.size());
  CHECK(lab.destinationGuard.paced == content.size());
}

TEST_CASE("a file that is verified has been read again and is told with its hash") {
  MoverLab lab;
  auto content = lab.bytes(2 * MIB + 1);
  auto from = lab.fileOf("from", content);
  auto to = lab.emptyFile("to");
  MoverOptions options;
  options.verify = true;
  auto copy = copyFile(lab, from, to, options);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK(copy.commit.synced);
  CHECK((lab.contentOf(to) == content));
  for (auto guard : {&lab.sourceGuard, &lab.destinationGuard}) {
    REQUIRE(guard->outcomes.size() == 1);
    CHECK(guard->outcomes[0].path == "file");
    CHECK(guard->outcomes[0].problem == nullptr);
    CHECK(guard->outcomes[0].hasHash);
  }
}

TEST_CASE("a file that is on the disk otherwise than it was sent fails") {
  MoverLab lab;
  auto content = lab.bytes(2 * MIB);
  auto from = lab.fileOf("from", content);
  auto to = lab.emptyFile("to");
  // Behind what is being written, so that it stays.
  lab.destinationGuard.onPace = [&](uint64_t bytes) {
    if (bytes < 2 * MIB) return;
    kj::byte changed = kj::byte(content[0] ^ 1);
    KJ_SYSCALL(pwrite(to, &changed, 1, 0));
  };
  // The hook runs before the file's end is read.
  lab.sourceGuard.onPace = [&](uint64_t) {};
  MoverOptions options;
  options.verify = true;
  auto sourceEnd = lab.startSource(options);
  auto destinationEnd = lab.startDestination(options);
  lab.announce();
  lab.sendFile("file", from, content.size());
  lab.openFile(to);
  auto commit = lab.awaitCommit();
  REQUIRE(commit.outcome.is<Problem>());
  CHECK(commit.outcome.get<Problem>().kind == ProblemKind::BAD_HASH);
  lab.finish(sourceEnd, destinationEnd);
}

TEST_CASE("an empty file may come with a descriptor") {
  MoverLab lab;
  auto from = lab.emptyFile("from");
  auto to = lab.emptyFile("to");
  auto copy = copyFile(lab, from, to);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK(lab.contentOf(to).size() == 0);
}

// A file with 4 KiB of data at each megabyte, and a block of zeros that is no hole.
kj::AutoCloseFd sparseFile(MoverLab& lab, kj::StringPtr name) {
  auto fd = lab.emptyFile(name);
  KJ_SYSCALL(ftruncate(fd, off_t(8 * MIB + 100)));
  auto data = lab.bytes(4096);
  for (size_t at = 0; at < 8 * MIB; at += MIB) KJ_SYSCALL(pwrite(fd, data.begin(), data.size(), off_t(at)));
  auto zeros = kj::heapArray<kj::byte>(256 << 10);
  memset(zeros.begin(), 0, zeros.size());
  KJ_SYSCALL(pwrite(fd, zeros.begin(), zeros.size(), off_t(2 * MIB + 4096)));
  return fd;
}

TEST_CASE("holes stay holes, runs of zeros become some, or all is written, as is wanted") {
  using Sparse = schema::FileOrder::Sparse;
  uint64_t taken[3];
  for (auto sparse : {Sparse::AUTO, Sparse::ALWAYS, Sparse::NEVER}) {
    MoverLab lab;
    auto from = sparseFile(lab, "from");
    auto to = lab.emptyFile("to");
    MoverOptions options;
    options.sparse = sparse;
    options.verify = true;
    auto copy = copyFile(lab, from, to, options);
    CHECK(copy.commit.outcome.is<Whole>());
    CHECK((lab.contentOf(to) == lab.contentOf(from)));
    taken[size_t(sparse)] = allocated(to);
    if (sparse != Sparse::NEVER) CHECK(copy.sent < MIB);
    if (sparse == Sparse::AUTO) CHECK(allocated(to) <= allocated(from) + 65536);  // file systems have their own
  }
  CHECK(taken[size_t(Sparse::ALWAYS)] < taken[size_t(Sparse::AUTO)]);
  CHECK(taken[size_t(Sparse::NEVER)] >= 8 * MIB);
}

// Delta and resume ---------------------------------------------------------------------------------------------------

TEST_CASE("of a file that is there in an earlier version only what differs travels") {
  MoverLab lab;
  auto content = lab.bytes(10 * MIB + 777);
  auto base = lab.fileOf("base", content);
  content[5 * MIB] = kj::byte(content[5 * MIB] ^ 1);
  auto from = lab.fileOf("from", content);
  auto to = lab.emptyFile("to");
  MoverOptions options;
  options.verify = true;
  auto copy = copyFile(lab, from, to, options, int(base), false, true);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK(copy.sent == CHUNK_BYTES);
  CHECK((lab.contentOf(to) == content));
}

TEST_CASE("a file that grew, or shrank, or has become another arrives from any base") {
  for (size_t baseBytes : {size_t(0), size_t(1), CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5, 20 * CHUNK_BYTES}) {
    for (bool other : {false, true}) {
      MoverLab lab;
      auto content = lab.bytes(7 * CHUNK_BYTES + 99);
      auto old = lab.bytes(baseBytes);
      if (!other) memcpy(old.begin(), content.begin(), kj::min(old.size(), content.size()));
      auto base = lab.fileOf("base", old);
      auto from = lab.fileOf("from", content);
      auto to = lab.emptyFile("to");
      auto copy = copyFile(lab, from, to, {}, int(base), false, true);
      CHECK(copy.commit.outcome.is<Whole>());
      CHECK((lab.contentOf(to) == content));
      size_t same = baseBytes >= content.size() ? content.size() : baseBytes - baseBytes % CHUNK_BYTES;
      CHECK(copy.sent == content.size() - (other ? 0 : same));
    }
  }
}

TEST_CASE("of a file that is there byte for byte nothing travels and nothing is written") {
  for (bool verify : {false, true}) {
    MoverLab lab;
    auto content = lab.bytes(9 * MIB + 5);
    auto base = lab.fileOf("base", content);
    auto from = lab.fileOf("from", content);
    auto to = lab.emptyFile("to");
    MoverOptions options;
    options.verify = verify;
    auto copy = copyFile(lab, from, to, options, int(base), false, true);
    CHECK(copy.commit.outcome.is<Unchanged>());
    CHECK(copy.sent == 0);
    CHECK(allocated(to) == 0);
  }
}

TEST_CASE("holes are the same as the base's holes, and of a base that has none they are made again") {
  MoverLab lab;
  auto from = sparseFile(lab, "from");
  auto base = sparseFile(lab, "base");
  KJ_SYSCALL(ftruncate(base, off_t(8 * MIB)));  // not the same size, so that it is copied
  auto filled = lab.bytes(MIB);
  KJ_SYSCALL(pwrite(base, filled.begin(), filled.size(), off_t(6 * MIB)));
  auto random = lab.contentOf(from);
  auto to = lab.emptyFile("to");
  auto copy = copyFile(lab, from, to, {}, int(base), false, true);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK((lab.contentOf(to) == random));
  CHECK(allocated(to) < 2 * MIB);
}

TEST_CASE("an interrupted transfer goes on where it was") {
  for (size_t there : {size_t(1), CHUNK_BYTES + 1, 12 * CHUNK_BYTES, 50 * CHUNK_BYTES}) {
    MoverLab lab;
    auto content = lab.bytes(20 * CHUNK_BYTES + 4567);
    auto partial = lab.bytes(there);
    memcpy(partial.begin(), content.begin(), kj::min(partial.size(), content.size()));
    auto from = lab.fileOf("from", content);
    auto to = lab.fileOf("to", partial);
    MoverOptions options;
    options.verify = true;
    auto copy = copyFile(lab, from, to, options, nullptr, true, true);
    CHECK(copy.commit.outcome.is<Whole>());
    CHECK((lab.contentOf(to) == content));
    size_t kept = there >= content.size() ? content.size() : there - there % CHUNK_BYTES;
    CHECK(copy.sent == content.size() - kept);
  }
}

TEST_CASE("a partial file and the version behind it serve together; rubbish in either is replaced") {
  MoverLab lab;
  auto content = lab.bytes(20 * CHUNK_BYTES);
  auto partial = kj::heapArray<kj::byte>(content.slice(0, 8 * CHUNK_BYTES + 100));
  partial[3 * CHUNK_BYTES] = kj::byte(partial[3 * CHUNK_BYTES] ^ 1);
  auto old = kj::heapArray<kj::byte>(content.asPtr());
  old[0] = kj::byte(old[0] ^ 1);
  old[15 * CHUNK_BYTES] = kj::byte(old[15 * CHUNK_BYTES] ^ 1);
  auto from = lab.fileOf("from", content);
  auto base = lab.fileOf("base", old);
  auto to = lab.fileOf("to", partial);
  auto copy = copyFile(lab, from, to, {}, int(base), true, true);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK((lab.contentOf(to) == content));
  CHECK(copy.sent == 2 * CHUNK_BYTES);
}

TEST_CASE("a hole over what an interrupted transfer left is a hole") {
  MoverLab lab;
  auto from = sparseFile(lab, "from");
  auto to = lab.fileOf("to", lab.bytes(5 * MIB));
  auto copy = copyFile(lab, from, to, {}, nullptr, true, true);
  CHECK(copy.commit.outcome.is<Whole>());
  CHECK((lab.contentOf(to) == lab.contentOf(from)));
  CHECK(allocated(to) < MIB);
}

}  // namespace
}  // namespace postern::transfer
