#include "transport/transfer/directory-sync.h"

#include <errno.h>
#include <unistd.h>

namespace postern::transfer {

namespace {

// EINVAL: there is nothing to sync on such a file system. EBADF: a directory that may not be read; its file system's
// own commit interval has to do.
bool isSynced(int result) {
  return result == 0 || errno == EINVAL || errno == EBADF;
}

}  // namespace

void DirectorySync::add(kj::AutoCloseFd directory, uint64_t device) {
  if (everything) return;
  if (systems.empty()) {
    directories.add(Directory{kj::mv(directory), device});
    if (directories.size() <= SYNCED_SINGLY) return;
    for (auto& each : directories) addSystem(kj::mv(each));
    directories.clear();
    return;
  }
  addSystem({kj::mv(directory), device});
}

void DirectorySync::addSystem(Directory directory) {
  for (auto& each : systems) {
    if (each.device == directory.device) return;
  }
  everything = systems.size() >= SYNCED_SINGLY;
  if (!everything) systems.add(kj::mv(directory));
}

int DirectorySync::sync() {
  int error = 0;
  if (everything) ::sync();
  for (auto& each : directories) {
    if (!isSynced(fsync(each.descriptor)) && error == 0) error = errno;
  }
  for (auto& each : systems) {
    if (!everything && !isSynced(syncfs(each.descriptor)) && error == 0) error = errno;
  }
  return error;
}

}  // namespace postern::transfer
