#include "transport/serial-writer.h"

#include <algorithm>

namespace postern {

SerialWriter::SerialWriter(BytePipe& pipe, kj::Function<void(kj::ArrayPtr<kj::byte>)> encode)
    : pipe(pipe), encode(kj::mv(encode)), tasks(*this) {}

SerialWriter::~SerialWriter() noexcept(false) {
  wakeWaiter();
}

void SerialWriter::abandon() {
  boundary.reset();
  syncLeft = 0;
  begun = false;
  wakeWaiter();
}

// True when no SYNC stands in the way of the session's next bytes.
// T33
bool SerialWriter::syncsAreOut() {
  for (;;) {
    if (syncLeft == 0) {
      if (!owed || !boundary.isAtBoundary()) return true;
      encode(kj::arrayPtr(sync.data(), sync.size()));
      syncLeft = sync.size();
    }
    kj::ArrayPtr<const kj::byte> rest =
        kj::arrayPtr(sync.data(), sync.size()).slice(sync.size() - syncLeft, sync.size());
    auto result = writeToPipe(kj::arrayPtr(&rest, 1));
    if (result.bytes == 0) {
      // One that has not begun is made anew when it does.
      if (syncLeft == sync.size()) syncLeft = 0;
      if (!ended) waitForPipe();
      return false;
    }
    if (syncLeft == sync.size()) {
      owed = false;
      begun = true;
    }
    syncLeft -= result.bytes;
  }
}

PipeResult SerialWriter::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  bool clear = syncsAreOut();
  if (ended) return {PipeState::ENDED, 0};
  if (!clear) return {PipeState::OPEN, 0};
  if (owed) return writeRestOfFrame(pieces);

  auto result = writeToPipe(pieces);
  size_t left = result.bytes;
  for (auto piece : pieces) {
    size_t n = std::min(left, piece.size());
    boundary.passed(piece.slice(0, n));
    left -= n;
  }
  return result;
}

// A SYNC waits for the end of a frame that has begun, so no more than to there.
PipeResult SerialWriter::writeRestOfFrame(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  size_t written = 0;
  for (auto piece : pieces) {
    while (piece.size() > 0) {
      auto part = piece.slice(0, std::min(piece.size(), boundary.certainlyInFrame()));
      auto result = writeToPipe(kj::arrayPtr(&part, 1));
      if (result.state == PipeState::ENDED && written == 0) return result;
      if (result.bytes == 0) return {PipeState::OPEN, written};
      boundary.passed(part.slice(0, result.bytes));
      written += result.bytes;
      piece = piece.slice(result.bytes, piece.size());
      if (boundary.isAtBoundary()) {
        syncsAreOut();
        return {PipeState::OPEN, written};
      }
    }
  }
  return {PipeState::OPEN, written};
}

// NOT_CONNECTED is the reader's to notice; here it is a pipe that takes nothing now.
PipeResult SerialWriter::writeToPipe(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  auto result = pipe.write(pieces);
  if (result.state == PipeState::ENDED) {
    ended = true;
    return {PipeState::ENDED, 0};
  }
  if (result.state == PipeState::NOT_CONNECTED) result = {PipeState::OPEN, 0};
  refused = result.bytes == 0;
  return result;
}

kj::Promise<void> SerialWriter::whenWritable() {
  if (ended || !refused) return kj::READY_NOW;
  waitForPipe();
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void SerialWriter::waitForPipe() {
  if (waiting) return;
  waiting = true;
  tasks.add(pipe.whenWritable().then([this]() { pipeIsWritable(); }));
}

void SerialWriter::pipeIsWritable() {
  waiting = false;
  refused = false;
  syncsAreOut();
  if (!refused) wakeWaiter();
}

void SerialWriter::wakeWaiter() {
  KJ_IF_MAYBE (fulfiller, waiter) {
    auto woken = kj::mv(*fulfiller);
    waiter = nullptr;
    woken->fulfill();
  }
}

// A pipe's promise is never rejected. Should it be all the same, nothing would write from then on: an end.
void SerialWriter::taskFailed(kj::Exception&&) {
  ended = true;
  wakeWaiter();
}

}  // namespace postern
