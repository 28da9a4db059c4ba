#include "transport/transfer/source-count.h"

#include <dirent.h>

namespace postern::transfer {

bool SourceCount::directory(const SourcePlace&, const struct stat&, int) {
  ++counted.directories;
  counted.deepest = kj::max(counted.deepest, tree.depth() + 1);
  return true;
}

bool SourceCount::leaf(const SourcePlace& place, unsigned char type) {
  if (++counted.files % FILES_PER_LOOK == 0 && !goesOn()) return false;
  struct stat status {};
  if (options.listing) return true;  // of which nothing but names travels
  if (type != DT_REG || statusOf(place, status) != 0 || !S_ISREG(status.st_mode)) return true;
  if (options.archive && status.st_nlink > 1) {
    auto id = FileId::of(status);
    if (links.find(id) != nullptr) return true;
    links.remember(id, tree.sentPath(place));
  }
  // No tree has more than the type can say; one that lies about it is bounded all the same.
  uint64_t size = kj::min(static_cast<uint64_t>(status.st_size), MAX_FILE_BYTES - counted.bytes);
  counted.bytes += size;
  counted.holes += size - kj::min(size, static_cast<uint64_t>(status.st_blocks) * 512);
  return true;
}

bool SourceCount::failed(const SourcePlace&, Problem) {
  ++counted.files;
  return true;
}

}  // namespace postern::transfer
