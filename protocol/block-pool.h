#pragma once
// BlockPool: the 64 KiB blocks in which records travel, shared by all links of an event loop.
//
// A block is an ordinary kj::Array whose destruction gives it back. Free blocks, up to limits::MAX_IDLE_BLOCKS, are
// kept for reuse and returned to the system once none has been used for limits::BUFFER_IDLE; a pool without free blocks
// has no timer running, so that an idle process is not woken. How many blocks are out is bounded by those who take them
// (credit, queue limits), not here. Blocks may outlive the pool (an RPC call in progress keeps its message for as long
// as the event loop lives); they are then returned to the system. One loop, one thread.

#include <kj/array.h>
#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

namespace postern {

class BlockPool final {
 public:
  // Room for a frame header, an inner header, the longest bulk data and a tag; and for the longest record's plaintext.
  static constexpr size_t BLOCK_BYTES = size_t(64) << 10;
  // Up to here take(size) gives an allocation of its own, so that what a block holds fills at least half of it.
  static constexpr size_t SMALL_BYTES = size_t(32) << 10;

  explicit BlockPool(kj::Timer& timer) : timer(timer), lender(new Lender(*this)), lastUse(timer.now()) {}
  ~BlockPool() noexcept(false);
  KJ_DISALLOW_COPY(BlockPool);

  // Contents undefined. 16-byte aligned.
  kj::Array<kj::byte> take();
  // Exactly `size` bytes (at most BLOCK_BYTES): from the heap if that is small, else the front of a block.
  kj::Array<kj::byte> take(size_t size);

  size_t freeBlocks() const { return idle.size(); }
  size_t blocksOut() const { return lender->out; }

 private:
  // What blocks that are out know of their pool. Lives as long as the pool or any of them.
  struct Lender final : public kj::ArrayDisposer {
    BlockPool* pool;
    size_t out = 0;

    explicit Lender(BlockPool& pool) : pool(&pool) {}
    void disposeImpl(void* firstElement, size_t elementSize, size_t elementCount, size_t capacity,
                     void (*destroyElement)(void*)) const override;
  };

  kj::Timer& timer;
  Lender* const lender;
  kj::Vector<kj::byte*> idle;
  kj::TimePoint lastUse;
  bool trimming = false;
  kj::Promise<void> trimTask = nullptr;

  void giveBack(kj::byte* block);
  kj::byte* takeBlock();
  kj::Promise<void> trimWhenIdle();
};

}  // namespace postern
