#include "transport/transfer/source-file.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "transport/sandbox.h"
#include "transport/transfer/data-block.h"

namespace postern::transfer {

namespace {

constexpr size_t CHUNK_BLOCKS = CHUNK_BYTES / DATA_BYTES;

// What most chunks of holes have: computed once.
const Hash& hashOfZeroChunk() {
  static const Hash hash = [] {
    ContentHash content;
    for (size_t i = 0; i < CHUNK_BLOCKS; ++i) content.update(zeros());
    return content.finish();
  }();
  return hash;
}

}  // namespace

void SourceFile::run(const FileWorker::Stop& stop) noexcept {
  if (!begun && !begin()) return;
  uint64_t withoutBlocks = 0;
  while (!stop && state == State::READING && withoutBlocks < STEP_BYTES) {
    if (!step(withoutBlocks)) break;
  }
}

// T91
bool SourceFile::begin() {
  begun = true;
  if (fileStatus(fd, before) != 0) {
    fail(ProblemKind::UNREADABLE, kj::str("cannot be looked at: ", strerror(errno)));
  } else if (!S_ISREG(before.st_mode)) {
    fail(ProblemKind::PROTOCOL, kj::str("what the opener passed is not a regular file"));
  } else if (uint64_t(before.st_size) != size) {
    fail(ProblemKind::CHANGED, kj::str("its size changed after it was opened"));
  } else {
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return true;
  }
  return false;
}

// False: nothing more can be done in this run.
bool SourceFile::step(uint64_t& withoutBlocks) {
  if (position == size) {
    end();
    return false;
  }
  lookAround();
  if (position < baseBytes && position >= differsUntil) return compareChunk(withoutBlocks);
  return sendExtent(withoutBlocks);
}

void SourceFile::lookAround() {
  if (position >= extent.end) extent = extentAt(fd, position, size);
}

void SourceFile::end() {
  struct stat now;
  if (fileStatus(fd, now) != 0) return fail(ProblemKind::UNREADABLE, kj::str("cannot be looked at: ", strerror(errno)));
  if (!isUnchanged(before, now)) return fail(ProblemKind::CHANGED, kj::str("it changed while it was read"));
  if (verify) hash = whole.finish();
  state = State::WHOLE;
}

void SourceFile::fail(ProblemKind kind, kj::String detail) {
  state = State::FAILED;
  problem = transfer::problem(kind, kj::mv(detail));
}

// Without a base -----------------------------------------------------------------------------------------------------

// The next block, or all of a hole.
bool SourceFile::sendExtent(uint64_t& withoutBlocks) {
  uint64_t end = position < differsUntil ? std::min(extent.end, differsUntil) : extent.end;
  if (extent.isHole) {
    uint64_t bytes = end - position;
    if (verify) bytes = std::min(bytes, STEP_BYTES);  // its zeros are hashed, which takes time
    hashZeros(bytes);
    add(SourcePiece::Kind::HOLE, bytes);
    if (verify) withoutBlocks += bytes;
    return true;
  }
  if (blocks.empty()) return false;
  size_t bytes = size_t(std::min<uint64_t>(DATA_BYTES, end - position));
  // Stays among the blocks until it is full: it must not be destroyed in this thread.
  auto& block = blocks.back();
  if (!read(block, position, bytes)) return false;
  auto content = contentSpace(block).slice(0, bytes);
  if (verify) whole.update(content);
  if (sparse == Sparse::ALWAYS && isZero(content)) {
    add(SourcePiece::Kind::HOLE, bytes);
    withoutBlocks += bytes;
    return true;
  }
  pieces.add(SourcePiece{SourcePiece::Kind::DATA, position, bytes, kj::mv(block)});
  blocks.removeLast();
  position += bytes;
  return true;
}

bool SourceFile::read(kj::Array<kj::byte>& block, uint64_t offset, size_t bytes) {
  auto got = readFully(fd, contentSpace(block).slice(0, bytes), offset);
  if (got.bytes == bytes) return true;
  if (got.error != 0) {
    fail(ProblemKind::UNREADABLE, kj::str("cannot be read: ", strerror(got.error)));
  } else {
    fail(ProblemKind::CHANGED, kj::str("it became shorter while it was read"));
  }
  return false;
}

void SourceFile::hashZeros(uint64_t bytes) {
  while (verify && bytes > 0) {
    size_t n = size_t(std::min<uint64_t>(bytes, zeros().size()));
    whole.update(zeros().slice(0, n));
    bytes -= n;
  }
}

// Joined to the piece before it, if that is of the same kind.
void SourceFile::add(SourcePiece::Kind kind, uint64_t bytes) {
  if (!pieces.empty() && pieces.back().kind == kind) {
    pieces.back().bytes += bytes;
  } else {
    pieces.add(SourcePiece{kind, position, bytes});
  }
  position += bytes;
}

// With a base --------------------------------------------------------------------------------------------------------

bool SourceFile::compareChunk(uint64_t& withoutBlocks) {
  if (hashes.empty() || blocks.size() < CHUNK_BLOCKS) return false;
  uint64_t bytes = std::min<uint64_t>(CHUNK_BYTES, size - position);
  bool isHole = extent.isHole && extent.end - position >= bytes;
  Hash mine;
  if (isHole && bytes == CHUNK_BYTES) {
    mine = hashOfZeroChunk();
  } else {
    KJ_IF_MAYBE (read, readChunk(bytes)) {
      mine = *read;
    } else {
      return false;
    }
  }
  bool same = mine == hashes.front();
  hashes.pop_front();
  withoutBlocks += bytes;
  if (!same && extent.end - position < bytes) {
    differsUntil = position + bytes;
    return true;
  }
  if (isHole) {
    hashZeros(bytes);
    add(same ? SourcePiece::Kind::SAME : SourcePiece::Kind::HOLE, bytes);
    return true;
  }
  if (verify) {
    for (uint64_t done = 0; done < bytes; done += DATA_BYTES) {
      size_t n = size_t(std::min<uint64_t>(DATA_BYTES, bytes - done));
      whole.update(contentSpace(blocks[done / DATA_BYTES]).slice(0, n));
    }
  }
  if (same) {
    add(SourcePiece::Kind::SAME, bytes);
  } else {
    sendChunk(bytes);
  }
  return true;
}

// Into the first of the blocks.
kj::Maybe<Hash> SourceFile::readChunk(uint64_t bytes) {
  ContentHash content;
  for (uint64_t done = 0; done < bytes; done += DATA_BYTES) {
    auto& block = blocks[done / DATA_BYTES];
    size_t n = size_t(std::min<uint64_t>(DATA_BYTES, bytes - done));
    if (!read(block, position + done, n)) return nullptr;
    content.update(contentSpace(block).slice(0, n));
  }
  return content.finish();
}

void SourceFile::sendChunk(uint64_t bytes) {
  kj::Vector<kj::Array<kj::byte>> left;
  uint64_t end = position + bytes;
  for (auto& block : blocks) {
    size_t n = size_t(std::min<uint64_t>(DATA_BYTES, end - position));
    if (n == 0) {
      left.add(kj::mv(block));
    } else if (sparse == Sparse::ALWAYS && isZero(contentSpace(block).slice(0, n))) {
      left.add(kj::mv(block));
      add(SourcePiece::Kind::HOLE, n);
    } else {
      pieces.add(SourcePiece{SourcePiece::Kind::DATA, position, n, kj::mv(block)});
      position += n;
    }
  }
  blocks = kj::mv(left);
}

}  // namespace postern::transfer
