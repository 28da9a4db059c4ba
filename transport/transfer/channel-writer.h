#pragma once
// ChannelWriter: what a mover sends over its bulk channel, in order: frames that are gathered into blocks, copied once,
// and blocks that are filled already, not copied unless credit cuts them in two. What credit does not allow waits here;
// whoever puts looks at waiting(). One loop; the channel outlives it.

#include <kj/async.h>
#include <kj/vector.h>

#include <deque>

#include "protocol/bulk-channel.h"

namespace postern::transfer {

class ChannelWriter {
 public:
  explicit ChannelWriter(BulkChannel& channel) : channel(channel) {}
  KJ_DISALLOW_COPY(ChannelWriter);

  // Copied. Goes with what comes after it until flush(), or until a block is full.
  void put(kj::ArrayPtr<const kj::byte> bytes);
  // The first `size` bytes of the block's space (BulkBlock). Goes at once.
  void putBlock(kj::Array<kj::byte> block, size_t size);
  void flush();

  size_t waiting() const { return waitingBytes; }
  // True once no more than `limit` bytes wait; false when the channel takes nothing any more.
  kj::Promise<bool> whenWaiting(size_t limit);
  // Nothing is sent any more, and the channel not touched.
  void stop();

 private:
  struct Block {
    kj::Array<kj::byte> storage;
    size_t begin = 0;  // of what was not yet sent, in the space
    size_t end = 0;
    bool open = false;  // takes more

    kj::ArrayPtr<kj::byte> space() { return storage.slice(RECORD_HEADROOM, RECORD_HEADROOM + MAX_BULK_DATA_BYTES); }
  };
  struct Waiter {
    size_t limit;
    kj::Own<kj::PromiseFulfiller<bool>> fulfiller;
  };

  BulkChannel& channel;
  std::deque<Block> blocks;
  size_t waitingBytes = 0;
  bool ended = false;
  bool sending = false;
  kj::Vector<Waiter> waiters;
  kj::Promise<void> task = kj::READY_NOW;

  kj::Promise<void> sendAll();
  void sendSome(size_t sendable);
  void end();
  void wake();
};

}  // namespace postern::transfer
