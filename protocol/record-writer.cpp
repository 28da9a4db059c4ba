#include "protocol/record-writer.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol/turns.h"

namespace postern {

namespace {

// Sealed bytes ahead of the pipe, above which no further record is sealed: so one record, or several small ones.
constexpr size_t SEAL_AHEAD_BYTES = size_t(48) << 10;
constexpr size_t PIECES_PER_WRITE = 16;
// A buffer of this size that is mostly empty is not kept while the pipe is full.
constexpr size_t COMPACT_FROM_BYTES = size_t(4) << 10;

}  // namespace

OutgoingRecord smallRecord(RecordHeader header, kj::ArrayPtr<const kj::byte> data) {
  auto buffer = kj::heapArray<kj::byte>(RECORD_HEADROOM + data.size() + TAG_BYTES);
  if (data.size() > 0) memcpy(buffer.begin() + RECORD_HEADROOM, data.begin(), data.size());
  return {header, kj::mv(buffer), data.size()};
}

RecordWriter::RecordWriter(FrameLink& link, RecordSealer sealer, kj::Timer& timer, RecordSource& control,
                           RecordSource& rpc, RecordSource& bulk, kj::Function<void()> linkEnded,
                           kj::Function<void(kj::Exception&&)> failed)
    : link(link),
      sealer(kj::mv(sealer)),
      timer(timer),
      control(control),
      rpc(rpc),
      bulk(bulk),
      linkEnded(kj::mv(linkEnded)),
      failed(kj::mv(failed)),
      lastRekey(timer.now()) {}

void RecordWriter::putSealed(kj::Array<kj::byte> frame) {
  wireBytes += frame.size();
  auto bytes = frame.asPtr();
  wire.push_back({kj::mv(frame), bytes});
  wake();
}

void RecordWriter::wake() {
  if (flushScheduled || waiting || stopped) return;
  flushScheduled = true;
  flushTask = kj::evalLast([this]() {
                flushScheduled = false;
                flush();
              }).eagerlyEvaluate([this](kj::Exception&& exception) { failed(kj::mv(exception)); });
}

void RecordWriter::flush() {
  if (waiting || stopped) return;
  auto result = writeAll();
  switch (result) {
    case FlushResult::DONE:
      break;
    case FlushResult::BLOCKED:
    case FlushResult::PAUSED:
      waiting = true;
      waitingTask =
          continueBehind(result).eagerlyEvaluate([this](kj::Exception&& exception) { failed(kj::mv(exception)); });
      break;
    case FlushResult::ENDED:
      linkEnded();
      break;
  }
}

kj::Promise<void> RecordWriter::continueBehind(FlushResult pause) {
  burstBegan = sealer.bytesSealed();
  auto wait = pause == FlushResult::BLOCKED ? link.whenWritable() : afterTurns(limits::BUSY_POLL_INTERVAL);
  return wait.then([this]() -> kj::Promise<void> {
    if (stopped) return kj::READY_NOW;
    auto result = writeAll();
    if (result == FlushResult::BLOCKED || result == FlushResult::PAUSED) return continueBehind(result);
    waiting = false;
    if (result == FlushResult::ENDED) linkEnded();
    return kj::READY_NOW;
  });
}

RecordWriter::FlushResult RecordWriter::writeAll() {
  for (;;) {
    if (sealer.bytesSealed() - burstBegan >= limits::WRITE_BURST_BYTES) return FlushResult::PAUSED;
    fill();
    if (wire.empty()) {
      notifyIfEmpty();
      return FlushResult::DONE;
    }
    auto result = writeSome();
    if (result != FlushResult::DONE) return result;
  }
}

void RecordWriter::fill() {
  while (wireBytes < SEAL_AHEAD_BYTES && sealNext()) {
  }
}

bool RecordWriter::rekeyIsDue() const {
  return sealer.recordsSinceRekey() >= limits::REKEY_AFTER_RECORDS || timer.now() - lastRekey >= limits::REKEY_AFTER;
}

bool RecordWriter::sealNext() {
  auto record = control.nextRecord();
  if (record == nullptr) {
    auto& first = rpcsTurn ? rpc : bulk;
    auto& second = rpcsTurn ? bulk : rpc;
    record = first.nextRecord();
    if (record != nullptr) {
      rpcsTurn = !rpcsTurn;
    } else {
      record = second.nextRecord();
    }
  }
  KJ_IF_MAYBE (r, record) {
    if (rekeyIsDue()) {
      put(smallRecord({RecordType::REKEY}, nullptr));
      sealer.rekey();
      lastRekey = timer.now();
    }
    put(kj::mv(*r));
    return true;
  }
  return false;
}

void RecordWriter::put(OutgoingRecord record) {
  auto frame = sealer.seal(record.header, record.buffer, record.dataBytes);
  wireBytes += frame.size();
  wire.push_back({kj::mv(record.buffer), frame});
}

RecordWriter::FlushResult RecordWriter::writeSome() {
  kj::ArrayPtr<const kj::byte> pieces[PIECES_PER_WRITE];
  size_t count = 0;
  for (auto& piece : wire) {
    if (count == PIECES_PER_WRITE) break;
    pieces[count++] = piece.rest;
  }
  auto result = link.write(kj::arrayPtr(pieces, count));
  if (result.state == PipeState::ENDED) return FlushResult::ENDED;
  size_t taken = result.state == PipeState::OPEN ? result.bytes : 0;
  wireBytes -= taken;
  size_t left = taken;
  while (left > 0) {
    auto& piece = wire.front();
    if (left < piece.rest.size()) {
      piece.rest = piece.rest.slice(left, piece.rest.size());
      break;
    }
    left -= piece.rest.size();
    wire.pop_front();
  }
  if (taken == 0) compact();
  // A part means that the pipe was full then; asking again costs one call and finds out whether it still is.
  return taken == 0 ? FlushResult::BLOCKED : FlushResult::DONE;
}

void RecordWriter::compact() {
  for (auto& piece : wire) {
    if (piece.storage.size() < COMPACT_FROM_BYTES || piece.rest.size() > piece.storage.size() / 2) continue;
    piece.storage = kj::heapArray<kj::byte>(piece.rest);
    piece.rest = piece.storage;
  }
}

void RecordWriter::stop() {
  stopped = true;
  wire.clear();
  wireBytes = 0;
  notifyIfEmpty();
}

void RecordWriter::notifyIfEmpty() {
  KJ_IF_MAYBE (waiter, emptyWaiter) {
    auto own = kj::mv(*waiter);
    emptyWaiter = nullptr;
    own->fulfill();
  }
}

kj::Promise<void> RecordWriter::whenEmpty() {
  if (stopped) return kj::READY_NOW;
  wake();
  auto paf = kj::newPromiseAndFulfiller<void>();
  emptyWaiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

}  // namespace postern
