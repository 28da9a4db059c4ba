#pragma once
// SourceFile: a file that is being sent, read in a FileWorker's thread in steps of some blocks: what of it is data,
// what is a hole, and what is as the destination has it already.
//
// Guarantees: a file that is not regular, or is not as long as was announced, or whose size, mtime or ctime change
// while it is read, ends FAILED; what was found of it until then must not be used as a file. Reads no further than it
// was given blocks, and hashes of the base, for; and at most STEP_BYTES in one run.
//
// Between two runs its fields are the loop's.

#include <deque>

#include "protocol/transfer/problem.h"
#include "transport/transfer/file-hash.h"
#include "transport/transfer/file-io.h"
#include "transport/transfer/file-worker.h"

namespace postern::transfer {

// Of bytes that need no block: what the base has, and holes whose hash is wanted.
constexpr uint64_t STEP_BYTES = 16 * CHUNK_BYTES;

struct SourcePiece {
  enum class Kind : uint8_t { DATA, HOLE, SAME };
  Kind kind;
  uint64_t offset;
  uint64_t bytes;
  kj::Array<kj::byte> block = nullptr;  // DATA: contentSpace() of it holds them
};

class SourceFile final : public FileWorker::Job {
 public:
  enum class State : uint8_t {
    READING,  // wants blocks, or hashes
    WHOLE,
    FAILED,
  };
  using Sparse = schema::FileOrder::Sparse;

  // `fd` is the worker's.
  SourceFile(int fd, uint64_t size, Sparse sparse, bool verify) : fd(fd), size(size), sparse(sparse), verify(verify) {}

  // Given.
  kj::Vector<kj::Array<kj::byte>> blocks;  // to be filled; at least CHUNK_BYTES / DATA_BYTES with a base
  uint64_t baseBytes = 0;                  // before the first run
  std::deque<Hash> hashes;                 // of the base's chunks, from the one behind what was read on

  // Found.
  kj::Vector<SourcePiece> pieces;
  State state = State::READING;
  Problem problem;  // FAILED
  Hash hash;        // WHOLE, `verify`: of all of it

  // Whether a run would come further, as far as hashes go.
  bool hasHashes() const { return position >= baseBytes || position < differsUntil || !hashes.empty(); }

  void run(const FileWorker::Stop& stop) noexcept override;

 private:
  const int fd;
  const uint64_t size;
  const Sparse sparse;
  const bool verify;
  struct stat before {};
  bool begun = false;
  uint64_t position = 0;
  uint64_t differsUntil = 0;  // a chunk with holes that is not as the base: read again by its extents
  Extent extent{0, false};    // around `position`, if that is below its end
  ContentHash whole;

  bool begin();
  bool step(uint64_t& withoutBlocks);
  void end();
  void fail(ProblemKind kind, kj::String detail);
  void lookAround();

  bool sendExtent(uint64_t& withoutBlocks);
  bool compareChunk(uint64_t& withoutBlocks);
  kj::Maybe<Hash> readChunk(uint64_t bytes);
  void sendChunk(uint64_t bytes);
  bool read(kj::Array<kj::byte>& block, uint64_t offset, size_t bytes);
  void add(SourcePiece::Kind kind, uint64_t bytes);
  void hashZeros(uint64_t bytes);
};

}  // namespace postern::transfer
