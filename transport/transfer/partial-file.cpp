#include "transport/transfer/partial-file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/encoding.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

constexpr kj::StringPtr SUFFIX = ".postern-partial"_kj;
// Somebody else may take a partial file over, or give it its name, between opening and locking.
constexpr int TRIES = 8;

enum class Found {
  OURS,     // a regular file of this user with one name
  FOREIGN,  // put there by somebody else
  GONE,     // the name belongs to another file by now, or to none
};

Found whatIsThere(int descriptor, int folder, kj::StringPtr partial) {
  struct stat opened {};
  struct stat named {};
  if (fstat(descriptor, &opened) != 0) return Found::FOREIGN;
  if (fstatat(folder, partial.cStr(), &named, AT_SYMLINK_NOFOLLOW) != 0) return Found::GONE;
  if (opened.st_dev != named.st_dev || opened.st_ino != named.st_ino) return Found::GONE;
  bool ours = S_ISREG(opened.st_mode) && opened.st_nlink == 1 && opened.st_uid == geteuid();
  return ours ? Found::OURS : Found::FOREIGN;
}

// What this user left may have its last mode already, one that does not let him open it: it gets 0600 again, unless
// somebody writes to it. 0, or errno.
int makeAccessible(int folder, kj::StringPtr partial) {
  auto handle = openComponent(folder, partial, O_PATH);
  if (handle == nullptr) return errno;
  struct stat status {};
  if (fstat(handle, &status) != 0) return errno;
  if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_nlink != 1) return EACCES;
  auto path = descriptorPath(handle);
  auto locked = openComponent(folder, partial, READ_FLAGS);
  if (locked == nullptr && chmod(path.cStr(), 0400) == 0) locked = openComponent(folder, partial, READ_FLAGS);
  if (locked == nullptr) return errno;
  if (flock(locked, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    chmod(path.cStr(), status.st_mode & 07777);
    return EBUSY;
  }
  return chmod(path.cStr(), 0600) == 0 ? 0 : errno;
}

Problem busy() {
  return problem(ProblemKind::BUSY, kj::str("another transfer writes to it; wait until that is over"));
}

}  // namespace

kj::String partialName(kj::StringPtr name) {
  if (name.size() + 1 + SUFFIX.size() <= MAX_NAME_BYTES) return kj::str(".", name, SUFFIX);
  kj::byte hash[16];
  crypto_generichash(hash, sizeof(hash), name.asBytes().begin(), name.size(), nullptr, 0);
  return kj::str(".", kj::encodeHex(hash), SUFFIX);
}

bool isPartialName(kj::StringPtr name) {
  return name.startsWith(".") && name.endsWith(SUFFIX) && name.size() > 1 + SUFFIX.size();
}

bool isNamed(int descriptor, int folder, kj::StringPtr name) {
  struct stat opened {};
  struct stat named {};
  return fstat(descriptor, &opened) == 0 && fstatat(folder, name.cStr(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

// T86
kj::OneOf<PartialFile, Problem> openPartial(int folder, kj::StringPtr partial, Leftover leftover) {
  for (int i = 0; i < TRIES; ++i) {
    auto fd = openComponent(folder, partial, O_RDWR | O_CREAT | O_EXCL, 0600);
    bool found = fd == nullptr && errno == EEXIST;
    if (found) fd = openComponent(folder, partial, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd == nullptr) {
      int error = errno;
      if (found && error == ENOENT) continue;
      if (found && error == ELOOP && unlinkat(folder, partial.cStr(), 0) == 0) continue;
      if (found && error == EACCES) error = makeAccessible(folder, partial);
      if (error == 0) continue;
      if (error == EBUSY) return busy();
      return problemOf(error, "be written", "");
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return busy();
      // Some network file systems have no locks: there, hashes and sizes alone tell when two transfers mixed.
      if (errno != ENOLCK && errno != EOPNOTSUPP) return problemOf(errno, "be locked", "");
    }
    auto there = whatIsThere(fd, folder, partial);
    // One that was just made is ours, whatever number such a file system (network, FAT) gives its owner.
    if (!found && there == Found::FOREIGN) there = Found::OURS;
    if (there == Found::FOREIGN && unlinkat(folder, partial.cStr(), 0) != 0) return problemOf(errno, "be written", "");
    if (there != Found::OURS) continue;
    if (found && leftover == Leftover::EMPTY && ftruncate(fd, 0) != 0) return problemOf(errno, "be written", "");
    if (fchmod(fd, 0600) != 0) return problemOf(errno, "be written", "");
    return PartialFile{kj::mv(fd), found && leftover == Leftover::USE};
  }
  return busy();
}

int clearPartial(int folder, kj::StringPtr partial) {
  for (int i = 0; i < TRIES; ++i) {
    auto fd = openComponent(folder, partial, READ_FLAGS);
    if (fd == nullptr && errno == ENOENT) return 0;
    if (fd == nullptr && errno == EACCES) {
      if (int error = makeAccessible(folder, partial)) return error;
      continue;
    }
    if (fd == nullptr && errno != ELOOP) return errno;
    if (fd != nullptr) {
      if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return EBUSY;
      if (whatIsThere(fd, folder, partial) == Found::GONE) continue;
    }
    return unlinkat(folder, partial.cStr(), 0) == 0 || errno == ENOENT ? 0 : errno;
  }
  return EBUSY;
}

}  // namespace postern::transfer
