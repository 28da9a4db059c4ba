#include "host/audit/locked-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

namespace postern::host {

LockedFile openLocked(kj::StringPtr path, LockedFileMode mode) {
  bool create = mode == LockedFileMode::CREATE;
  int more = create ? O_CREAT | O_EXCL : 0;
  int fd = open(path.cStr(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | more, 0640);
  if (fd < 0) return {kj::AutoCloseFd(), errno};
  kj::AutoCloseFd file(fd);
  struct stat info;
  if (fstat(file, &info) != 0) return {kj::AutoCloseFd(), errno};
  if (!S_ISREG(info.st_mode)) return {kj::AutoCloseFd(), EINVAL};
  if (flock(file, LOCK_EX | LOCK_NB) != 0) return {kj::AutoCloseFd(), errno};
  if (create && fchmod(file, 0640) != 0) return {kj::AutoCloseFd(), errno};
  return {kj::mv(file), 0};
}

}  // namespace postern::host
