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
  if (systems.size() < MAX_SYSTEMS) {
    systems.add(kj::mv(directory));
  } else if (!isSynced(syncfs(directory.descriptor)) && failure == 0) {
    failure = errno;
  }
}

int DirectorySync::sync() {
  for (auto& each : directories) {
    if (!isSynced(fsync(each.descriptor)) && failure == 0) failure = errno;
  }
  for (auto& each : systems) {
    if (!isSynced(syncfs(each.descriptor)) && failure == 0) failure = errno;
  }
  return failure;
}

}  // namespace postern::transfer
