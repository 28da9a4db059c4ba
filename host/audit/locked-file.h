#pragma once
// The file that an audit log is written to: opened for appending and locked (flock) for as long as it is open. A
// regular file, never a symbolic link; one that is made here has mode 0640 whatever the umask is.

#include <kj/io.h>
#include <kj/string.h>

namespace postern::host {

struct LockedFile {
  kj::AutoCloseFd file;
  int error = 0;  // errno; EWOULDBLOCK: another process has the lock; EINVAL: no regular file
};

enum class LockedFileMode { EXISTING, CREATE };
LockedFile openLocked(kj::StringPtr path, LockedFileMode mode);

}  // namespace postern::host
