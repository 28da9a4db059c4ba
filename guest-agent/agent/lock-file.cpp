#include "guest-agent/agent/lock-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/connection.h"

namespace postern::guest {

namespace {

struct flock wholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

kj::Maybe<kj::String> makeFoldersAbove(kj::StringPtr path, mode_t mode) {
  for (size_t at = 1; at < path.size(); ++at) {
    if (path[at] != '/') continue;
    auto folder = kj::heapString(path.slice(0, at));
    if (mkdir(folder.cStr(), mode) != 0 && errno != EEXIST && errno != EISDIR) {
      // An existing folder on a read-only file system is one, too.
      int error = errno;
      if (access(folder.cStr(), F_OK) != 0) return kj::str(folder, ": cannot make this folder: ", errorWords(error));
    }
  }
  return nullptr;
}

kj::OneOf<kj::AutoCloseFd, LockHeld, LockError> takeLock(kj::StringPtr path) {
  KJ_IF_MAYBE (error, makeFoldersAbove(path, 0755)) return LockError{kj::mv(*error)};
  int fd = open(path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (fd < 0) return LockError{kj::str(path, ": ", errorWords(errno))};
  kj::AutoCloseFd owned(fd);
  auto lock = wholeFile();
  if (fcntl(fd, F_SETLK, &lock) == 0) return kj::mv(owned);
  if (errno != EACCES && errno != EAGAIN) return LockError{kj::str(path, ": cannot be locked: ", errorWords(errno))};
  lock = wholeFile();
  if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) return LockHeld{lock.l_pid};
  return LockHeld{0};
}

kj::Maybe<pid_t> lockHolder(kj::StringPtr path) {
  int fd = open(path.cStr(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return nullptr;
  kj::AutoCloseFd owned(fd);
  auto lock = wholeFile();
  if (fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return nullptr;
  return lock.l_pid;
}

}  // namespace postern::guest
