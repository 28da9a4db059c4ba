#pragma once
// BaseFile: what a destination has of a file already, in a FileWorker's thread: what an interrupted transfer left in
// the new file itself, and behind that the version that is there now. Read in chunks for their hashes; chunks that are
// the same are copied out of the old version, holes as holes, and stay where they are in a partial one.

#include <kj/one-of.h>
#include <kj/vector.h>

#include "protocol/transfer/problem.h"
#include "transport/transfer/file-hash.h"
#include "transport/transfer/file-io.h"
#include "transport/transfer/file-worker.h"

namespace postern::transfer {

// What of `there` bytes is of use for a file of `size`: whole chunks, or all of it.
constexpr uint64_t usableBytes(uint64_t there, uint64_t size) {
  return there >= size ? size : there - there % CHUNK_BYTES;
}

class BaseFile {
 public:
  // `into` is the new file, of which the first `partialBytes` (usable ones) are there; `old` the version that is there
  // now, for reading; `size` the new file's. Descriptors are the worker's.
  BaseFile(int into, uint64_t partialBytes, kj::Maybe<int> old, uint64_t size)
      : into(into), partialBytes(partialBytes), old(old), size(size) {}

  // Looks at the old version.
  kj::Maybe<Problem> begin();

  // Of these bytes hashes can be told: whole chunks, or all of the new file's size.
  uint64_t bytes() const { return kj::max(partialBytes, usableBytes(oldBytes, size)); }
  // The old version is as long as the new file, and nothing is there of the new one.
  bool mayBeUnchanged() const { return partialBytes == 0 && old != nullptr && uint64_t(before.st_size) == size; }

  // Of the next chunk. A chunk that cannot be read gets zeros, which are no content's hash, so that it is sent.
  bool hasMoreHashes() const { return hashed < bytes(); }
  Hash nextHash();

  // Puts these bytes of the old version where they belong in the new one.
  kj::Maybe<Problem> copy(uint64_t offset, uint64_t bytes, const FileWorker::Stop& stop);
  // The old version is what it was, if something of it was used.
  kj::Maybe<Problem> end();

 private:
  const int into;
  const uint64_t partialBytes;
  const kj::Maybe<int> old;
  const uint64_t size;
  struct stat before {};
  uint64_t oldBytes = 0;
  uint64_t hashed = 0;
  bool copied = false;
  kj::Array<kj::byte> buffer;

  kj::Maybe<Problem> copyData(int from, uint64_t offset, uint64_t bytes);
};

// What errno means for a file that is written.
Problem writeProblem(int error, kj::StringPtr what);

}  // namespace postern::transfer
