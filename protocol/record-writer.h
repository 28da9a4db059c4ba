#pragma once
// RecordWriter: the outgoing half of a session. Asks its sources for records in the order of their urgency, seals them
// and writes them, never more than about one full record ahead of what the pipe has taken: so whatever becomes urgent
// waits for one record at most in this process. Puts in REKEY records when they are due.
//
// Sources call wake() when they have something; all that comes in one turn of the event loop is written together at its
// end. Nothing is held while there is nothing to send, and what waits for a full pipe lies in buffers of its own size
// (at most twice). One loop; owned by the session.

#include <kj/array.h>
#include <kj/async.h>
#include <kj/function.h>
#include <kj/timer.h>

#include <deque>

#include "protocol/frame-link.h"
#include "protocol/record-cipher.h"

namespace postern {

// A record to be sealed in place: RECORD_HEADROOM, data, TAG_BYTES.
struct OutgoingRecord {
  RecordHeader header;
  kj::Array<kj::byte> buffer;
  size_t dataBytes;
};

// A record without bulk: `data` is copied.
OutgoingRecord smallRecord(RecordHeader header, kj::ArrayPtr<const kj::byte> data);

class RecordSource {
 public:
  virtual ~RecordSource() noexcept(false) {}
  // The next record in this source's own order, or null. Called until the pipe is full; must not call the writer.
  virtual kj::Maybe<OutgoingRecord> nextRecord() = 0;
};

class RecordWriter {
 public:
  // `control` goes before everything; `rpc` and `bulk` take turns. Sources, link and timer outlive the writer.
  // `linkEnded` is called once, when the link takes no more; `failed` when sealing or writing threw in a turn of the
  // writer's own.
  RecordWriter(FrameLink& link, RecordSealer sealer, kj::Timer& timer, RecordSource& control, RecordSource& rpc,
               RecordSource& bulk, kj::Function<void()> linkEnded, kj::Function<void(kj::Exception&&)> failed);
  KJ_DISALLOW_COPY(RecordWriter);

  // A whole frame that was sealed before this writer was given its sealer.
  void putSealed(kj::Array<kj::byte> frame);
  // There is something to send: at the end of this turn of the loop, and again behind every limits::WRITE_BURST_BYTES,
  // so that a link which takes everything leaves the loop to others, and to what has come in meanwhile.
  void wake();
  // At once. For a reader that has turned the loop over to other links and must not leave its answers behind.
  void flush();

  // No more records are taken from the sources; what is sealed is dropped.
  void stop();

  // Whether all that was taken from the sources has been given to the pipe.
  bool isEmpty() const { return wire.empty(); }
  // Resolves when nothing is left to send, or the writer has stopped. One waiter at a time.
  kj::Promise<void> whenEmpty();

  uint64_t bytesSealed() const { return sealer.bytesSealed(); }

 private:
  struct Piece {
    kj::Array<kj::byte> storage;
    kj::ArrayPtr<const kj::byte> rest;
  };
  enum class FlushResult { DONE, BLOCKED, PAUSED, ENDED };

  FrameLink& link;
  RecordSealer sealer;
  uint64_t burstBegan = 0;  // at so many bytes sealed
  kj::Timer& timer;
  RecordSource& control;
  RecordSource& rpc;
  RecordSource& bulk;
  kj::Function<void()> linkEnded;
  kj::Function<void(kj::Exception&&)> failed;

  std::deque<Piece> wire;  // sealed, in order
  size_t wireBytes = 0;
  kj::TimePoint lastRekey;
  bool rpcsTurn = true;
  bool stopped = false;
  bool flushScheduled = false;
  bool waiting = false;  // for the pipe, or for the loop to look after others
  kj::Promise<void> flushTask = kj::READY_NOW;
  kj::Promise<void> waitingTask = kj::READY_NOW;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> emptyWaiter;

  void fill();
  bool sealNext();
  bool rekeyIsDue() const;
  void put(OutgoingRecord record);
  FlushResult writeSome();
  void compact();
  FlushResult writeAll();
  kj::Promise<void> continueBehind(FlushResult pause);
  void notifyIfEmpty();
};

}  // namespace postern
