#include "protocol/state-file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"
#include "transport/private-file.h"

namespace postern {
namespace {

using test::TemporaryFolder;

StateFile openOk(kj::StringPtr path, PrivateFileMode mode = PrivateFileMode::CREATE) {
  auto result = openStateFile(path, mode);
  if (result.is<kj::String>()) FAIL(result.get<kj::String>().cStr());
  return kj::mv(result.get<StateFile>());
}

kj::String refusal(kj::StringPtr path, PrivateFileMode mode = PrivateFileMode::EXISTING) {
  auto result = openStateFile(path, mode);
  if (!result.is<kj::String>()) return kj::str("opened");
  return kj::mv(result.get<kj::String>());
}

bool contains(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

void flipByte(kj::StringPtr path, off_t at) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDWR | O_CLOEXEC));
  kj::byte b = 0;
  REQUIRE(pread(fd, &b, 1, at) == 1);
  b = static_cast<kj::byte>(b ^ 1);
  REQUIRE(pwrite(fd, &b, 1, at) == 1);
}

TEST_CASE("a state file keeps the latest state") {
  TemporaryFolder folder;
  auto path = folder.path("state");
  {
    auto file = openOk(path);
    CHECK(file.state() == nullptr);
    for (int i = 1; i <= 5; ++i) {
      auto text = kj::str("state ", i);
      CHECK(file.write(text.asBytes()) == nullptr);
      CHECK((KJ_ASSERT_NONNULL(file.state()) == text.asBytes()));
    }
  }
  auto again = openOk(path, PrivateFileMode::EXISTING);
  CHECK((KJ_ASSERT_NONNULL(again.state()) == kj::StringPtr("state 5").asBytes()));
  CHECK(again.generation() == 5);
  struct stat info;
  REQUIRE(stat(path.cStr(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  CHECK(info.st_size == 2 * StateFile::SLOT_BYTES);
}

// T36
TEST_CASE("a write that was torn at any point leaves the state before it") {
  // What a crash leaves: the slot that was being written is damaged anywhere, the other is as it was.
  for (off_t at = 0; at < static_cast<off_t>(StateFile::SLOT_BYTES); at += 61) {
    TemporaryFolder folder;
    auto path = folder.path("state");
    {
      auto file = openOk(path);
      CHECK(file.write(kj::StringPtr("old").asBytes()) == nullptr);  // slot 0
      CHECK(file.write(kj::StringPtr("new").asBytes()) == nullptr);  // slot 1
    }
    flipByte(path, static_cast<off_t>(StateFile::SLOT_BYTES) + at);
    auto file = openOk(path);
    CHECK((KJ_ASSERT_NONNULL(file.state()) == kj::StringPtr("old").asBytes()));
    // And the next write goes to the damaged slot.
    CHECK(file.write(kj::StringPtr("newer").asBytes()) == nullptr);
    auto again = openOk(path);
    CHECK((KJ_ASSERT_NONNULL(again.state()) == kj::StringPtr("newer").asBytes()));
  }
}

TEST_CASE("a file cut anywhere in its second slot still has its first") {
  for (off_t size = StateFile::SLOT_BYTES; size < static_cast<off_t>(2 * StateFile::SLOT_BYTES); size += 509) {
    TemporaryFolder folder;
    auto path = folder.path("state");
    {
      auto file = openOk(path);
      CHECK(file.write(kj::StringPtr("old").asBytes()) == nullptr);
      CHECK(file.write(kj::StringPtr("new").asBytes()) == nullptr);
    }
    REQUIRE(truncate(path.cStr(), size) == 0);
    auto file = openOk(path);
    CHECK((KJ_ASSERT_NONNULL(file.state()) == kj::StringPtr("old").asBytes()));
  }
}

// T35
TEST_CASE("a file that others may touch is refused, whatever the bit") {
  TemporaryFolder folder;
  auto path = folder.path("state");
  { CHECK(openOk(path).write(kj::StringPtr("x").asBytes()) == nullptr); }
  for (mode_t bit : {0040u, 0020u, 0010u, 0004u, 0002u, 0001u}) {
    REQUIRE(chmod(path.cStr(), 0600 | bit) == 0);
    CHECK(contains(refusal(path), "chmod 600"));
  }
  REQUIRE(chmod(path.cStr(), 0400) == 0);
  CHECK(!contains(refusal(path), "chmod 600"));
}

// T35
TEST_CASE("a file of another user, a link, a folder, a FIFO and a missing file are refused with a reason") {
  TemporaryFolder folder;
  auto path = folder.path("state");
  { CHECK(openOk(path).write(kj::StringPtr("x").asBytes()) == nullptr); }
  if (geteuid() == 0) {
    REQUIRE(chown(path.cStr(), 12345, 12345) == 0);
    CHECK(contains(refusal(path), "belongs to another user"));
  }
  auto link = folder.path("link");
  REQUIRE(symlink(path.cStr(), link.cStr()) == 0);
  CHECK(contains(refusal(link), "symbolic link"));
  auto fifo = folder.path("fifo");
  REQUIRE(mkfifo(fifo.cStr(), 0600) == 0);
  CHECK(contains(refusal(fifo), "not a regular file"));
  CHECK(contains(refusal(folder.path("none")), "no such file"));
  auto sub = folder.path("folder");
  REQUIRE(mkdir(sub.cStr(), 0700) == 0);
  CHECK(!contains(refusal(sub), "opened"));
}

TEST_CASE("an unreadable file is refused with advice") {
  // Root reads everything, so another user tries.
  TemporaryFolder folder;
  auto path = folder.path("state");
  { CHECK(openOk(path).write(kj::StringPtr("x").asBytes()) == nullptr); }
  if (geteuid() != 0) return;
  REQUIRE(chmod(folder.path("").cStr(), 0755) == 0);
  pid_t child = fork();
  if (child == 0) {
    if (setgid(12345) != 0 || setuid(12345) != 0) _exit(2);
    _exit(contains(refusal(path), "permission denied") ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

TEST_CASE("damage in both slots is an error, not an empty state") {
  TemporaryFolder folder;
  auto path = folder.path("state");
  {
    auto file = openOk(path);
    CHECK(file.write(kj::StringPtr("old").asBytes()) == nullptr);
    CHECK(file.write(kj::StringPtr("new").asBytes()) == nullptr);
  }
  flipByte(path, 100);
  flipByte(path, StateFile::SLOT_BYTES + 100);
  CHECK(contains(refusal(path), "damaged"));
}

// T36
TEST_CASE("a state that is too large is refused and a full disk loses nothing") {
  TemporaryFolder folder;
  auto path = folder.path("state");
  auto file = openOk(path);
  CHECK(file.write(kj::StringPtr("old").asBytes()) == nullptr);
  auto large = kj::heapArray<kj::byte>(StateFile::MAX_STATE_BYTES + 1);
  CHECK(KJ_ASSERT_NONNULL(file.write(large)) == StateFileError::TOO_LARGE);
  CHECK(file.write(large.slice(0, StateFile::MAX_STATE_BYTES)) == nullptr);
  CHECK(file.write(kj::StringPtr("current").asBytes()) == nullptr);

  // A limit on file size fails a write as a full disk does, in a child so that the limit ends with it. Slot 1 is beyond
  // it.
  auto fresh = folder.path("fresh");
  pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {StateFile::SLOT_BYTES, StateFile::SLOT_BYTES};
    auto opened = openStateFile(fresh, PrivateFileMode::CREATE);
    auto& second = opened.get<StateFile>();
    bool first = second.write(kj::StringPtr("kept").asBytes()) == nullptr;
    setrlimit(RLIMIT_FSIZE, &limit);
    KJ_IF_MAYBE (error, second.write(kj::StringPtr("lost").asBytes())) {
      bool same = KJ_ASSERT_NONNULL(second.state()) == kj::StringPtr("kept").asBytes();
      _exit(first && *error == StateFileError::DISK && same ? 0 : 1);
    }
    _exit(2);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  auto kept = openOk(fresh);
  CHECK((KJ_ASSERT_NONNULL(kept.state()) == kj::StringPtr("kept").asBytes()));
}

}  // namespace
}  // namespace postern
