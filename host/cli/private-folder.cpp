#include "host/cli/private-folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cli/invocation.h"

namespace postern::cli {

namespace {

constexpr int FOLDER_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

kj::Vector<kj::String> namesIn(int folder) {
  kj::Vector<kj::String> names;
  int copy = openat(folder, ".", FOLDER_FLAGS);
  auto* stream = copy < 0 ? nullptr : fdopendir(copy);
  if (stream == nullptr) return names;
  KJ_DEFER(closedir(stream));
  while (auto* entry = readdir(stream)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      names.add(kj::str(static_cast<const char*>(entry->d_name)));
    }
  }
  return names;
}

// As deep as a transfer goes (transfer::MAX_DEPTH).
void removeContent(int folder) {
  for (auto& name : namesIn(folder)) {
    if (unlinkat(folder, name.cStr(), 0) == 0 || errno != EISDIR) continue;
    if (fchmodat(folder, name.cStr(), S_IRWXU, 0) == 0) {
      kj::AutoCloseFd inner(openat(folder, name.cStr(), FOLDER_FLAGS));
      if (inner.get() >= 0) removeContent(inner);
    }
    unlinkat(folder, name.cStr(), AT_REMOVEDIR);
  }
}

}  // namespace

PrivateFolder::PrivateFolder(kj::StringPtr parent) {
  auto pattern = kj::str(parent, "/postern-cp-XXXXXX");
  if (mkdtemp(pattern.begin()) == nullptr) {
    fail(client::FailureKind::FAILED,
         kj::str("cannot make a temporary folder in ", parent, ": ", strerror(errno), "; set TMPDIR to another"));
  }
  folder = kj::mv(pattern);
}

PrivateFolder::~PrivateFolder() noexcept(false) {
  kj::AutoCloseFd handle(::open(folder.cStr(), FOLDER_FLAGS));
  if (handle.get() >= 0) removeContent(handle);
  rmdir(folder.cStr());
}

kj::AutoCloseFd PrivateFolder::open() const {
  int fd;
  KJ_SYSCALL(fd = ::open(folder.cStr(), FOLDER_FLAGS));
  return kj::AutoCloseFd(fd);
}

}  // namespace postern::cli
