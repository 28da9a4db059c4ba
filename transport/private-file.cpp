#include "transport/private-file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

namespace postern {

namespace {

kj::StringPtr adviceFor(int error) {
  switch (error) {
    case ENOENT:
      return "there is no such file; has this end been enrolled?";
    case EACCES:
    case EPERM:
      return "permission denied; run this as the user that owns it";
    case ELOOP:
      return "is a symbolic link, which is refused";
    case ENOSPC:
      return "the disk is full";
    case EROFS:
      return "the file system is read-only";
    default:
      return strerror(error);
  }
}

// A new file's name is on the disk when its folder is.
bool syncFolderOf(kj::StringPtr path) {
  kj::String folder;
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    folder = kj::str(path.slice(0, kj::max(*slash, size_t(1))));
  } else {
    folder = kj::str(".");
  }
  kj::AutoCloseFd fd(open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd != nullptr && (fsync(fd) == 0 || errno == EINVAL);  // EINVAL: nothing to sync on such a file system
}

}  // namespace

kj::OneOf<StateFile, kj::String> openStateFile(kj::StringPtr path, PrivateFileMode mode) {
  int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  if (mode == PrivateFileMode::CREATE) flags |= O_CREAT;
  int fd = open(path.cStr(), flags, 0600);
  if (fd < 0) return kj::str(path, ": ", adviceFor(errno));
  kj::AutoCloseFd file(fd);
  if (mode == PrivateFileMode::CREATE && !syncFolderOf(path)) {
    return kj::str(path, ": its folder cannot be synced: ", adviceFor(errno));
  }
  auto opened = StateFile::open(kj::mv(file), geteuid());
  if (opened.is<StateFileError>()) return kj::str(path, ": ", describe(opened.get<StateFileError>()));
  return kj::mv(opened.get<StateFile>());
}

}  // namespace postern
