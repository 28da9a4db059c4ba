#pragma once
// What both ends remember of a transfer's files that have several names: bounded by MAX_LINKED_BYTES, which both count
// alike, so that the source links to nothing that the destination has forgotten.

#include <kj/hash.h>
#include <kj/map.h>
#include <kj/string.h>
#include <stdint.h>
#include <sys/stat.h>

#include "transport/transfer/source-opener.h"

namespace postern::transfer {

struct FileId {
  uint64_t device;
  uint64_t inode;
  static FileId of(const struct stat& status) { return {status.st_dev, status.st_ino}; }
  bool operator==(const FileId& other) const { return device == other.device && inode == other.inode; }
  kj::uint hashCode() const { return kj::hashCode(device, inode); }
};

// `path` in all of this: components from the top of the transfer with '/' between, as they travel.
class LinkedBytes {
 public:
  // Whether there is room for one more.
  bool take(kj::StringPtr path) {
    size_t cost = path.size() + 64;
    if (cost > left) return false;
    left -= cost;
    return true;
  }

 private:
  size_t left = MAX_LINKED_BYTES;
};

// The source's: by file.
class SourceLinks {
 public:
  // Under which path it was sent.
  kj::Maybe<kj::StringPtr> find(FileId id) const {
    return paths.find(id).map([](const kj::String& path) { return kj::StringPtr(path); });
  }
  // Whether later names of it can be sent as links.
  bool remember(FileId id, kj::String path) {
    if (!bytes.take(path)) return false;
    paths.upsert(id, kj::mv(path), [](kj::String&, kj::String&&) {});
    return true;
  }
  // It was not sent after all.
  void forget(FileId id) { paths.erase(id); }

 private:
  LinkedBytes bytes;
  kj::HashMap<FileId, kj::String> paths;
};

// The destination's: by path.
class DestinationLinks {
 public:
  kj::Maybe<FileId> find(kj::StringPtr path) const {
    return ids.find(path).map([](FileId id) { return id; });
  }
  void remember(kj::String path, FileId id) {
    if (!bytes.take(path)) return;
    ids.upsert(kj::mv(path), id, [](FileId& old, FileId&& now) { old = now; });
  }

 private:
  LinkedBytes bytes;
  kj::HashMap<kj::String, FileId> ids;
};

}  // namespace postern::transfer
