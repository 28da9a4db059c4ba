#pragma once
// BulkChannel: one of many byte streams inside a session, each with its own credit, so that a reader that stops holds
// up nobody else. File copies and services travel here, never in RPC.
//
// Opening: one end calls BulkMux::open(), sends the offer (channel number and first credit) in an RPC call, and the
// other end calls BulkMux::accept(). Each direction carries bytes, then ends by finish(), or both end by reset().
//
// Credit: a sender may send what the receiver has granted and no more; each record costs its data plus
// limits::BULK_RECORD_COST. Windows start at limits::BULK_WINDOW_FIRST, double with use to BULK_WINDOW_MAX, share
// BULK_WINDOWS_PER_LINK and fall back when idle. Credit returns when the receiver's owner has *destroyed* a chunk, not
// when it arrived, so the receiver's memory is bounded by its windows. A peer that sends more than it was granted ends
// the session.
//
// Memory: a channel that nothing is queued on holds no buffer. One loop. Channel and chunks may outlive the session;
// then every operation says SESSION_ENDED.

#include <kj/array.h>
#include <kj/async.h>
#include <kj/one-of.h>
#include <kj/refcount.h>
#include <stdint.h>

#include "protocol/record.h"

namespace postern {

class BulkMux;

// Data in one record, chosen so that a full record costs exactly one 64 KiB of credit.
constexpr size_t MAX_BULK_DATA_BYTES = 65536 - 64;

// A block to be filled by the owner of a channel and sent without a copy.
struct BulkBlock {
  kj::Array<kj::byte> storage;
  kj::ArrayPtr<kj::byte> space() { return storage.slice(RECORD_HEADROOM, RECORD_HEADROOM + MAX_BULK_DATA_BYTES); }
};

enum class BulkEnd {
  FINISHED,  // the peer has sent all it wants to send
  RESET,     // by the peer, or by reset() here
  SESSION_ENDED,
};

namespace _ {
class ChannelState;
}

// Received bytes. Destroying it returns its credit.
class BulkChunk {
 public:
  BulkChunk(kj::Own<_::ChannelState> channel, kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> bytes);
  BulkChunk(BulkChunk&& other) noexcept;
  BulkChunk& operator=(BulkChunk&& other);
  ~BulkChunk() noexcept(false);

  kj::ArrayPtr<const kj::byte> bytes() const { return data; }

 private:
  kj::Own<_::ChannelState> channel;  // null when moved from
  kj::Array<kj::byte> storage;
  kj::ArrayPtr<const kj::byte> data;
};

class BulkChannel {
 public:
  explicit BulkChannel(kj::Own<_::ChannelState> state);
  // Resets the channel unless both directions have ended; bytes that were sent before finish() still go out. Promises
  // of read() and write() may outlive the channel: they then say RESET and false.
  ~BulkChannel() noexcept(false);
  KJ_DISALLOW_COPY(BulkChannel);

  uint32_t number() const;

  // Sending. ---------------------------------------------------------------------------------------------------

  // Bytes that may be sent now, at most MAX_BULK_DATA_BYTES; 0 while there is no credit, two records are waiting, or
  // the direction has ended.
  size_t sendable() const;
  // Resolves when sendable() is not 0: true; or when the direction has ended otherwise: false. One waiter at a time.
  kj::Promise<bool> whenSendable();
  BulkBlock newBlock();
  // Sends the first `size` bytes of the block: 1 to sendable(). The block is gone with it.
  void send(BulkBlock block, size_t size);
  // Sends all of `bytes` (copied) as credit allows; false if the direction ended before. `bytes` outlives the promise.
  kj::Promise<bool> write(kj::ArrayPtr<const kj::byte> bytes);
  // Ends this direction behind what was sent. Idempotent.
  void finish();
  // Ends both directions; the peer's reader gets RESET, what was not yet sent is dropped. Idempotent.
  void reset();
  // Resolves when the channel ends in another way than by both sides' finish(): RESET or SESSION_ENDED. At once, also
  // while nobody reads, and before what read() has still to give. One waiter at a time.
  kj::Promise<BulkEnd> whenBroken();

  // Receiving. -------------------------------------------------------------------------------------------------

  // The next bytes, in order, or why there are no more. One waiter at a time.
  kj::Promise<kj::OneOf<BulkChunk, BulkEnd>> read();

 private:
  kj::Own<_::ChannelState> state;
};

}  // namespace postern
