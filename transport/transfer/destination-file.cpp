#include "transport/transfer/destination-file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "transport/sandbox.h"

namespace postern::transfer {

namespace {

// In one call. More would be no faster.
constexpr int WRITE_PIECES = 16;

// All that the vectors hold; they are used up. Null, or errno.
int writeGathered(int fd, iovec* pieces, int count, uint64_t offset) {
  while (count > 0) {
    ssize_t n = pwritev(fd, pieces, count, off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return EIO;
    offset += uint64_t(n);
    size_t left = size_t(n);
    while (count > 0 && left >= pieces->iov_len) {
      left -= pieces->iov_len;
      ++pieces;
      --count;
    }
    if (count > 0) {
      pieces->iov_base = static_cast<kj::byte*>(pieces->iov_base) + left;
      pieces->iov_len -= left;
    }
  }
  return 0;
}

}  // namespace

void DestinationFile::run(const FileWorker::Stop& stop) noexcept {
  kj::Maybe<Problem> wrong;
  if (!begun) wrong = begin();
  if (wrong == nullptr && state == State::WRITING) wrong = writeAll(stop);
  if (wrong == nullptr && state == State::WRITING && !stop) {
    makeHashes();
    if (finishing) wrong = finish(stop);
  }
  KJ_IF_MAYBE (what, wrong) {
    state = State::FAILED;
    problem = kj::mv(*what);
  }
}

// T91
kj::Maybe<Problem> DestinationFile::begin() {
  begun = true;
  struct stat now;
  if (fileStatus(fd, now) != 0) return writeProblem(errno, "look at the new file");
  if (!S_ISREG(now.st_mode)) {
    return transfer::problem(ProblemKind::PROTOCOL, kj::str("what the opener passed is not a regular file"));
  }
  if (now.st_size != 0 && !form.resumed) {
    return transfer::problem(ProblemKind::PROTOCOL, kj::str("the new file that the opener passed is not empty"));
  }
  uint64_t was = uint64_t(now.st_size);
  there = form.stream ? 0 : usableBytes(was, form.size);
  if (was > there && ftruncate(fd, off_t(there)) != 0) return writeProblem(errno, "set the size");
  if (form.stream || (old == nullptr && there == 0)) return nullptr;
  return base.emplace(fd, there, old, form.size).begin();
}

kj::Maybe<Problem> DestinationFile::writeAll(const FileWorker::Stop& stop) {
  for (size_t i = 0; i < pieces.size() && !stop;) {
    KJ_IF_MAYBE (wrong, put(i, stop)) return kj::mv(*wrong);
  }
  return nullptr;
}

// The piece at `index`, and those behind it that go with it.
kj::Maybe<Problem> DestinationFile::put(size_t& index, const FileWorker::Stop& stop) {
  auto& piece = pieces[index];
  size = piece.offset + piece.bytes;
  if (piece.kind == DestinationPiece::Kind::SAME) {
    ++index;
    return putSame(piece, stop);
  }
  KJ_IF_MAYBE (wrong, copyTop(stop)) return kj::mv(*wrong);
  if (piece.kind == DestinationPiece::Kind::HOLE) {
    ++index;
    return putHole(piece.offset, piece.bytes, stop);
  }
  if (form.sparse == Sparse::ALWAYS) {
    ++index;
    return putSparsely(piece);
  }
  return putData(index);
}

kj::Maybe<Problem> DestinationFile::putData(size_t& index) {
  iovec vectors[WRITE_PIECES];
  int count = 0;
  uint64_t offset = pieces[index].offset;
  for (; index < pieces.size() && count < WRITE_PIECES; ++index) {
    auto& piece = pieces[index];
    if (piece.kind != DestinationPiece::Kind::DATA) break;
    size = piece.offset + piece.bytes;
    // The kernel only reads; iovec has no const form.
    vectors[count++] = {const_cast<kj::byte*>(piece.content.begin()), piece.content.size()};
  }
  int error = writeGathered(fd, vectors, count, offset);
  if (error != 0) return writeProblem(error, "write");
  return nullptr;
}

// Without the pages of zeros.
kj::Maybe<Problem> DestinationFile::putSparsely(const DestinationPiece& piece) {
  auto rest = piece.content;
  uint64_t offset = piece.offset;
  FileWorker::Stop never{false};
  while (rest.size() > 0) {
    size_t n = std::min<size_t>(rest.size(), SPARSE_BYTES - offset % SPARSE_BYTES);
    auto part = rest.slice(0, n);
    if (isZero(part)) {
      KJ_IF_MAYBE (wrong, putHole(offset, n, never)) return kj::mv(*wrong);
    } else {
      auto put = writeFully(fd, part, offset);
      if (put.bytes < n) return writeProblem(put.error, "write");
    }
    offset += n;
    rest = rest.slice(n, rest.size());
  }
  return nullptr;
}

kj::Maybe<Problem> DestinationFile::putHole(uint64_t offset, uint64_t bytes, const FileWorker::Stop& stop) {
  uint64_t end = offset + bytes;
  if (form.sparse != Sparse::NEVER) {
    if (offset >= there) return nullptr;  // nothing is there, and its length comes at the end
    uint64_t old = std::min(end, there);
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(old - offset)) == 0) {
      return nullptr;
    }
    end = old;
  }
  while (offset < end && !stop) {
    auto part = zeros().slice(0, size_t(std::min<uint64_t>(zeros().size(), end - offset)));
    auto put = writeFully(fd, part, offset);
    if (put.bytes < part.size()) return writeProblem(put.error, "write");
    offset += part.size();
  }
  return nullptr;
}

// What is the same from the top on waits until something else has come.
kj::Maybe<Problem> DestinationFile::putSame(const DestinationPiece& piece, const FileWorker::Stop& stop) {
  auto& from = KJ_ASSERT_NONNULL(base, "checked: nothing is the same without a base");
  if (!somethingElse && from.mayBeUnchanged()) {
    sameFromTop = piece.offset + piece.bytes;
    return nullptr;
  }
  return from.copy(piece.offset, piece.bytes, stop);
}

kj::Maybe<Problem> DestinationFile::copyTop(const FileWorker::Stop& stop) {
  somethingElse = true;
  if (sameFromTop == 0) return nullptr;
  uint64_t bytes = sameFromTop;
  sameFromTop = 0;
  return KJ_ASSERT_NONNULL(base).copy(0, bytes, stop);
}

void DestinationFile::makeHashes() {
  KJ_IF_MAYBE (from, base) {
    for (; hashesWanted > 0 && from->hasMoreHashes(); --hashesWanted) hashes.addAll(from->nextHash().asPtr());
  }
  hashesWanted = 0;
}

kj::Maybe<Problem> DestinationFile::finish(const FileWorker::Stop& stop) {
  KJ_IF_MAYBE (from, base) {
    if (form.size > 0 && sameFromTop == form.size) {
      KJ_IF_MAYBE (wrong, verifyIn(KJ_ASSERT_NONNULL(old), stop)) return kj::mv(*wrong);
      KJ_IF_MAYBE (wrong, from->end()) return kj::mv(*wrong);
      state = State::UNCHANGED;
      return nullptr;
    }
    KJ_IF_MAYBE (wrong, copyTop(stop)) return kj::mv(*wrong);
    KJ_IF_MAYBE (wrong, from->end()) return kj::mv(*wrong);
  }
  if (ftruncate(fd, off_t(form.stream ? size : form.size)) != 0) return writeProblem(errno, "set the size");
  if (form.verify) {
    if (fsync(fd) != 0) return writeProblem(errno, "write to the disk");
    synced = true;
    KJ_IF_MAYBE (wrong, verifyIn(fd, stop)) return kj::mv(*wrong);
  }
  if (!stop) state = State::WHOLE;
  return nullptr;
}

// Reads all of it again, from the disk where the kernel lets go of what it has in memory.
kj::Maybe<Problem> DestinationFile::verifyIn(int file, const FileWorker::Stop& stop) {
  KJ_IF_MAYBE (wanted, wantedHash) {
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    auto buffer = kj::heapArray<kj::byte>(DATA_BYTES);
    ContentHash content;
    for (uint64_t offset = 0; !stop;) {
      auto got = readFully(file, buffer, offset);
      if (got.error != 0) return writeProblem(got.error, "read it again");
      content.update(buffer.slice(0, got.bytes));
      offset += got.bytes;
      if (got.bytes < buffer.size()) break;
    }
    if (!stop && !(content.finish() == *wanted)) {
      return transfer::problem(ProblemKind::BAD_HASH, kj::str("what is on the disk is not what was sent"));
    }
  }
  return nullptr;
}

}  // namespace postern::transfer
