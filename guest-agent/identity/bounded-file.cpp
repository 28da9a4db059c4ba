#include "guest-agent/identity/bounded-file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/io.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/connection.h"

namespace postern::guest {

namespace {

FileContent trouble(kj::StringPtr path, int error) {
  if (error == ENOENT || error == ENOTDIR) return FileMissing();
  if (error == ELOOP) return FileTrouble{kj::str(path, ": is a symbolic link, which is refused")};
  return FileTrouble{kj::str(path, ": ", errorWords(error))};
}

}  // namespace

FileContent readBounded(kj::StringPtr path, size_t most, SymbolicLinks links) {
  int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (links == SymbolicLinks::REFUSE ? O_NOFOLLOW : 0);
  int opened = open(path.cStr(), flags);
  if (opened < 0) return trouble(path, errno);
  kj::AutoCloseFd fd(opened);
  struct stat about;
  if (fstat(fd, &about) != 0) return trouble(path, errno);
  if (!S_ISREG(about.st_mode)) return FileTrouble{kj::str(path, ": is not a regular file")};
  // Files of /proc and /sys do not say how long they are.
  auto buffer = kj::heapArray<char>(most + 1);
  KJ_DEFER(sodium_memzero(buffer.begin(), buffer.size()));
  size_t size = 0;
  while (size < buffer.size()) {
    ssize_t n = read(fd, buffer.begin() + size, buffer.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return trouble(path, errno);
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  if (size > most) return FileTrouble{kj::str(path, ": is longer than ", most, " bytes")};
  return kj::heapArray<char>(buffer.slice(0, size));
}

}  // namespace postern::guest
