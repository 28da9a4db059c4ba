#pragma once
// DestinationFile: a file that is being received, written in a FileWorker's thread in batches of what came.
//
// Guarantees: nothing is written but to the descriptor that the opener passed, which is a regular file, empty unless
// `resumed`; a file that ends WHOLE is `size` bytes long (of a stream: as long as what came), holds what was sent, and
// with `verify` was read again from the disk and has the hash that was sent; UNCHANGED means that nothing was written.
// Hashes of the base are made between batches, so that they hold up no write for longer than HASH_STEP chunks.
//
// Between two runs its fields are the loop's. After FAILED further pieces are dropped.

#include <kj/debug.h>
#include <kj/refcount.h>

#include "transport/transfer/base-file.h"

namespace postern::transfer {

// A quarter of a megabyte each: a millisecond in all.
constexpr size_t HASH_STEP = 4;

struct DestinationPiece {
  enum class Kind : uint8_t { DATA, HOLE, SAME };
  Kind kind;
  uint64_t offset;
  uint64_t bytes;
  kj::ArrayPtr<const kj::byte> content = nullptr;  // DATA
  kj::Own<kj::Refcounted> keeps{};                 // what the content lies in
};

class DestinationFile final : public FileWorker::Job {
 public:
  enum class State : uint8_t { WRITING, WHOLE, UNCHANGED, FAILED };
  using Sparse = schema::FileOrder::Sparse;

  struct Form {
    uint64_t size;
    bool stream;  // the size is what comes
    bool resumed;
    bool verify;
    Sparse sparse;
  };
  // Descriptors are the worker's.
  DestinationFile(int fd, kj::Maybe<int> old, Form form) : fd(fd), old(old), form(form) {}

  // Given, for the next run.
  kj::Vector<DestinationPiece> pieces;
  size_t hashesWanted = 0;
  bool finishing = false;      // behind the pieces
  kj::Maybe<Hash> wantedHash;  // `verify`

  // Found.
  State state = State::WRITING;
  Problem problem;  // FAILED
  bool synced = false;
  uint64_t baseBytes() const { return base == nullptr ? 0 : KJ_ASSERT_NONNULL(base).bytes(); }
  bool hasMoreHashes() const { return base != nullptr && KJ_ASSERT_NONNULL(base).hasMoreHashes(); }
  kj::Vector<kj::byte> hashes;

  void run(const FileWorker::Stop& stop) noexcept override;

 private:
  const int fd;
  const kj::Maybe<int> old;
  const Form form;
  bool begun = false;
  kj::Maybe<BaseFile> base;
  uint64_t there = 0;          // bytes that a resumed file had
  uint64_t sameFromTop = 0;    // of the old version, not yet copied: if it is all of it, nothing is written
  bool somethingElse = false;  // than what is in sameFromTop has come
  uint64_t size = 0;           // so far

  kj::Maybe<Problem> begin();
  kj::Maybe<Problem> writeAll(const FileWorker::Stop& stop);
  kj::Maybe<Problem> put(size_t& index, const FileWorker::Stop& stop);
  kj::Maybe<Problem> putData(size_t& index);
  kj::Maybe<Problem> putSparsely(const DestinationPiece& piece);
  kj::Maybe<Problem> putHole(uint64_t offset, uint64_t bytes, const FileWorker::Stop& stop);
  kj::Maybe<Problem> putSame(const DestinationPiece& piece, const FileWorker::Stop& stop);
  kj::Maybe<Problem> copyTop(const FileWorker::Stop& stop);
  void makeHashes();
  kj::Maybe<Problem> finish(const FileWorker::Stop& stop);
  kj::Maybe<Problem> verifyIn(int file, const FileWorker::Stop& stop);
};

}  // namespace postern::transfer
