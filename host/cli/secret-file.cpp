#include "host/cli/secret-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cli/failure-text.h"
#include "host/cli/invocation.h"

namespace postern::cli {

void SecretFile::fail(int error) const {
  cli::fail(client::FailureKind::FAILED,
            kj::str("cannot write ", words.content, " to ", shown(finalPath, 300), ": ", strerror(error)));
}

void SecretFile::failExisting() const {
  cli::fail(client::FailureKind::INVALID,
            kj::str(shown(finalPath, 300), " exists; --force replaces it, ", words.option, " names another"));
}

SecretFile::SecretFile(kj::StringPtr path, Existing existing, Words words)
    : finalPath(kj::str(path)), existing(existing), words(words), writtenPath(kj::str(path, ".XXXXXX")) {
  struct stat status {};
  if (existing == Existing::REFUSED && lstat(finalPath.cStr(), &status) == 0) failExisting();
  // O_EXCL and 0600, by its definition.
  fd = kj::AutoCloseFd(mkostemp(writtenPath.begin(), O_CLOEXEC));
  if (fd.get() < 0) {
    int error = errno;
    writtenPath = nullptr;
    fail(error);
  }
}

SecretFile::~SecretFile() noexcept(false) {
  if (writtenPath.size() > 0) unlink(writtenPath.cStr());
}

void SecretFile::keep(kj::StringPtr content) {
  auto line = kj::str(content, '\n');
  auto written = ::write(fd, line.begin(), line.size());
  int error = written < 0 ? errno : ENOSPC;
  explicit_bzero(line.begin(), line.size());
  if (written != static_cast<ssize_t>(line.size())) fail(error);
  if (fchmod(fd, 0600) != 0 || fsync(fd) != 0) fail(errno);
  // link() refuses a name that is taken, whatever has it; rename() replaces the name and follows no symbolic link.
  if (existing == Existing::REFUSED) {
    if (link(writtenPath.cStr(), finalPath.cStr()) != 0) {
      if (errno == EEXIST) failExisting();
      fail(errno);
    }
    unlink(writtenPath.cStr());
  } else if (rename(writtenPath.cStr(), finalPath.cStr()) != 0) {
    fail(errno);
  }
  writtenPath = nullptr;
}

}  // namespace postern::cli
