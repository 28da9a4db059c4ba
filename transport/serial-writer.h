#pragma once
// SerialWriter: the outgoing half of a serial link: the session's frames, and between them the SYNCs that are owed.
//
// A SYNC goes out whole and at a frame boundary; its bytes are made when it begins to go out, so that it says what is
// true then, and any number of owe() calls before that cost one SYNC. SYNCs go out by themselves when the pipe takes
// them; nobody waits for it. Holds no buffer beside one SYNC.

#include <kj/async.h>
#include <kj/function.h>

#include <array>

#include "protocol/byte-pipe.h"
#include "protocol/hello.h"
#include "transport/frame-boundary.h"
#include "transport/sync-scanner.h"

namespace postern {

constexpr size_t SYNC_BYTES = SYNC_WORD_BYTES + HELLO_FRAME_BYTES;

class SerialWriter final : private kj::TaskSet::ErrorHandler {
 public:
  // `encode` fills in SYNC_BYTES.
  SerialWriter(BytePipe& pipe, kj::Function<void(kj::ArrayPtr<kj::byte>)> encode);
  ~SerialWriter() noexcept(false);
  KJ_DISALLOW_COPY(SerialWriter);

  // One SYNC is to be sent, by the next flush() or write().
  void owe() { owed = true; }
  // Tries to send what is owed, now.
  void flush() { syncsAreOut(); }
  // The session is over: the rest of its frame, and of a SYNC of its epoch, is not written.
  void abandon();
  // A SYNC has gone out, or begun to, since the last abandon().
  bool hasBegunSync() const { return begun; }

  // The session's bytes, after any SYNC that is owed where they begin a frame.
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces);
  kj::Promise<void> whenWritable();

  bool hasEnded() const { return ended; }

 private:
  BytePipe& pipe;
  kj::Function<void(kj::ArrayPtr<kj::byte>)> encode;
  FrameBoundary boundary;
  bool owed = false;
  bool begun = false;
  bool ended = false;
  bool refused = false;  // the pipe took nothing when last asked
  bool waiting = false;  // a task waits for the pipe
  std::array<kj::byte, SYNC_BYTES> sync{};
  size_t syncLeft = 0;  // of `sync`, still to be written
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> waiter;
  kj::TaskSet tasks;

  bool syncsAreOut();
  PipeResult writeToPipe(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces);
  PipeResult writeRestOfFrame(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces);
  void waitForPipe();
  void pipeIsWritable();
  void wakeWaiter();
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern
