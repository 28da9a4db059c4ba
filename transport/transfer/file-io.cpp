#include "transport/transfer/file-io.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

namespace {

const kj::byte ZEROS[DATA_BYTES] = {};

// Goes on until all is done, nothing more is, or something is wrong.
template <typename Call>
FileIo fully(size_t all, Call&& call) {
  size_t done = 0;
  while (done < all) {
    ssize_t n = call(done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {done, errno};
    if (n == 0) break;
    done += size_t(n);
  }
  return {done};
}

bool sameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

FileIo readFully(int fd, kj::ArrayPtr<kj::byte> to, uint64_t offset) {
  return fully(to.size(),
               [&](size_t done) { return pread(fd, to.begin() + done, to.size() - done, off_t(offset + done)); });
}

FileIo writeFully(int fd, kj::ArrayPtr<const kj::byte> from, uint64_t offset) {
  return fully(from.size(),
               [&](size_t done) { return pwrite(fd, from.begin() + done, from.size() - done, off_t(offset + done)); });
}

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  // The first byte, and that each is as the one before it.
  return bytes.size() == 0 || (bytes[0] == 0 && memcmp(bytes.begin(), bytes.begin() + 1, bytes.size() - 1) == 0);
}

kj::ArrayPtr<const kj::byte> zeros() {
  return ZEROS;
}

Extent extentAt(int fd, uint64_t offset, uint64_t size) {
  off_t data = lseek(fd, off_t(offset), SEEK_DATA);
  if (data < 0) return {size, errno == ENXIO};
  if (uint64_t(data) > offset) return {std::min(uint64_t(data), size), true};
  off_t hole = lseek(fd, off_t(offset), SEEK_HOLE);
  // A hole at `offset` after all: the file changes meanwhile, which is found out elsewhere.
  if (hole <= off_t(offset)) return {size, false};
  return {std::min(uint64_t(hole), size), false};
}

bool isUnchanged(const struct stat& before, const struct stat& now) {
  return before.st_size == now.st_size && sameTime(before.st_mtim, now.st_mtim) &&
         sameTime(before.st_ctim, now.st_ctim);
}

}  // namespace postern::transfer
