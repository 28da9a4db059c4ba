#pragma once
// What both ends' files do alike, in a FileWorker's thread: whole reads and writes, the extents of a sparse file, and
// whether a file is still what it was.

#include <kj/array.h>
#include <kj/common.h>
#include <stdint.h>
#include <sys/stat.h>

namespace postern::transfer {

// Runs of zeros of this length, at multiples of it, are what sparse=always makes holes of: a page.
constexpr size_t SPARSE_BYTES = 4096;

struct FileIo {
  size_t bytes;   // fewer than were asked for only at the file's end, or with an error
  int error = 0;  // errno
};
FileIo readFully(int fd, kj::ArrayPtr<kj::byte> to, uint64_t offset);
FileIo writeFully(int fd, kj::ArrayPtr<const kj::byte> from, uint64_t offset);

bool isZero(kj::ArrayPtr<const kj::byte> bytes);
// A block of them.
kj::ArrayPtr<const kj::byte> zeros();

struct Extent {
  uint64_t end;  // at most `size`
  bool isHole;
};
// What lies at `offset`, which is below `size`. Where the file system does not tell, it is data. Moves the descriptor's
// position.
Extent extentAt(int fd, uint64_t offset, uint64_t size);

// Size, mtime and ctime are the same.
bool isUnchanged(const struct stat& before, const struct stat& now);

}  // namespace postern::transfer
