#include "host/cli/bundle-file.h"

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

namespace {

[[noreturn]] void failAt(kj::StringPtr path, int error) {
  fail(client::FailureKind::FAILED, kj::str("cannot write the bundle to ", shown(path, 300), ": ", strerror(error)));
}

[[noreturn]] void failExisting(kj::StringPtr path) {
  fail(client::FailureKind::INVALID,
       kj::str(shown(path, 300), " exists; --force replaces it, --bundle-file names another"));
}

}  // namespace

BundleFile::BundleFile(kj::StringPtr path, Existing existing)
    : finalPath(kj::str(path)), existing(existing), writtenPath(kj::str(path, ".XXXXXX")) {
  struct stat status {};
  if (existing == Existing::REFUSED && lstat(finalPath.cStr(), &status) == 0) failExisting(finalPath);
  // O_EXCL and 0600, by its definition.
  fd = kj::AutoCloseFd(mkostemp(writtenPath.begin(), O_CLOEXEC));
  if (fd.get() < 0) {
    int error = errno;
    writtenPath = nullptr;
    failAt(finalPath, error);
  }
}

BundleFile::~BundleFile() noexcept(false) {
  if (writtenPath.size() > 0) unlink(writtenPath.cStr());
}

void BundleFile::keep(kj::StringPtr bundle) {
  auto line = kj::str(bundle, '\n');
  auto written = ::write(fd, line.begin(), line.size());
  int error = written < 0 ? errno : ENOSPC;
  explicit_bzero(line.begin(), line.size());
  if (written != static_cast<ssize_t>(line.size())) failAt(finalPath, error);
  if (fchmod(fd, 0600) != 0 || fsync(fd) != 0) failAt(finalPath, errno);
  // link() refuses a name that is taken, whatever has it; rename() replaces the name and follows no symbolic link.
  if (existing == Existing::REFUSED) {
    if (link(writtenPath.cStr(), finalPath.cStr()) != 0) {
      if (errno == EEXIST) failExisting(finalPath);
      failAt(finalPath, errno);
    }
    unlink(writtenPath.cStr());
  } else if (rename(writtenPath.cStr(), finalPath.cStr()) != 0) {
    failAt(finalPath, errno);
  }
  writtenPath = nullptr;
}

}  // namespace postern::cli
