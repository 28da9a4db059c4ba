#include "transport/transfer/base-file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "transport/sandbox.h"

namespace postern::transfer {

namespace {

// Between two looks at whether all this is still wanted.
constexpr uint64_t COPY_BYTES = uint64_t(4) << 20;

ProblemKind kindOf(int error) {
  switch (error) {
    case ENOSPC:
      return ProblemKind::NO_SPACE;
    case EDQUOT:
    case EFBIG:
      return ProblemKind::QUOTA;
    case EROFS:
      return ProblemKind::READ_ONLY;
    case EACCES:
    case EPERM:
      return ProblemKind::PERMISSION;
    default:
      return ProblemKind::FAILED;
  }
}

Problem changed() {
  return problem(ProblemKind::CHANGED, kj::str("the version at the destination changed meanwhile"));
}

}  // namespace

Problem writeProblem(int error, kj::StringPtr what) {
  return problem(kindOf(error), kj::str("cannot ", what, ": ", strerror(error)));
}

kj::Maybe<Problem> BaseFile::begin() {
  KJ_IF_MAYBE (fd, old) {
    if (fileStatus(*fd, before) != 0) return writeProblem(errno, "look at the version at the destination");
    if (!S_ISREG(before.st_mode)) {
      return problem(ProblemKind::PROTOCOL, kj::str("the version that the opener passed is not a regular file"));
    }
    oldBytes = uint64_t(before.st_size);
  }
  return nullptr;
}

Hash BaseFile::nextHash() {
  if (buffer == nullptr) buffer = kj::heapArray<kj::byte>(DATA_BYTES);
  uint64_t end = std::min(hashed + CHUNK_BYTES, bytes());
  int from = hashed < partialBytes ? into : old.orDefault(into);
  ContentHash content;
  bool whole = true;
  for (; hashed < end;) {
    auto part = buffer.slice(0, size_t(std::min<uint64_t>(buffer.size(), end - hashed)));
    whole = whole && readFully(from, part, hashed).bytes == part.size();
    content.update(part);
    hashed += part.size();
  }
  return whole ? content.finish() : Hash();
}

kj::Maybe<Problem> BaseFile::copy(uint64_t offset, uint64_t bytes, const FileWorker::Stop& stop) {
  uint64_t end = offset + bytes;
  uint64_t at = std::max(offset, std::min(end, partialBytes));
  KJ_IF_MAYBE (from, old) {
    while (at < end && !stop) {
      copied = true;
      auto extent = extentAt(*from, at, end);
      uint64_t n = std::min(extent.end - at, COPY_BYTES);
      if (extent.isHole) {
        n = extent.end - at;
      } else {
        KJ_IF_MAYBE (problem, copyData(*from, at, n)) return kj::mv(*problem);
      }
      at += n;
    }
  }
  return nullptr;
}

kj::Maybe<Problem> BaseFile::copyData(int from, uint64_t offset, uint64_t bytes) {
  uint64_t end = offset + bytes;
  while (offset < end) {
    off_t in = off_t(offset), out = off_t(offset);
    ssize_t n = copy_file_range(from, &in, into, &out, size_t(end - offset), 0);
    if (n > 0) {
      offset += uint64_t(n);
      continue;
    }
    // Another file system, or one that cannot: by hand, which also tells the error.
    if (buffer == nullptr) buffer = kj::heapArray<kj::byte>(DATA_BYTES);
    auto part = buffer.slice(0, size_t(std::min<uint64_t>(buffer.size(), end - offset)));
    auto got = readFully(from, part, offset);
    if (got.error != 0) return writeProblem(got.error, "read the version at the destination");
    if (got.bytes < part.size()) return changed();
    auto put = writeFully(into, part, offset);
    if (put.bytes < part.size()) return writeProblem(put.error, "write");
    offset += part.size();
  }
  return nullptr;
}

kj::Maybe<Problem> BaseFile::end() {
  KJ_IF_MAYBE (fd, old) {
    struct stat now;
    if (fileStatus(*fd, now) != 0) return writeProblem(errno, "look at the version at the destination");
    if ((copied || mayBeUnchanged()) && !isUnchanged(before, now)) return changed();
  }
  return nullptr;
}

}  // namespace postern::transfer
