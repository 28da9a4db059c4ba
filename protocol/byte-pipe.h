#pragma once
// BytePipe: the one thing the protocol asks of a transport.

#include <kj/async.h>
#include <kj/common.h>

namespace postern {

enum class PipeState {
  OPEN,           // bytes moved; or, with a count of 0, none can move now: wait for readiness
  NOT_CONNECTED,  // serial device only: nobody has the other end open at this moment. Not an end: it may come back
  ENDED,          // end of stream, or the stream failed; nothing will ever move again
};

struct PipeResult {
  PipeState state;
  size_t bytes;  // moved by this call; only in state OPEN
};

// A bidirectional stream of bytes, without message boundaries, peer identity or promises about what the other end
// reads. Readiness style: nothing is buffered inside and a waiting pipe holds no memory of its caller's, so that an
// idle link costs no buffer. Lives on one event loop. Not reentrant.
//
// Failures of the world (reset, EIO) are ENDED: the protocol treats every end without an authenticated CLOSE alike.
class BytePipe {
 public:
  virtual ~BytePipe() noexcept(false) {}

  // Never blocks. An empty buffer is the caller's bug.
  virtual PipeResult read(kj::ArrayPtr<kj::byte> buffer) = 0;
  // Never blocks; may take a part. {OPEN, 0} when nothing can be taken now.
  virtual PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) = 0;

  // Resolve when a read (write) is worth trying again; may be spurious. Call only after the operation has returned
  // {OPEN, 0} or NOT_CONNECTED, and with no other such promise of the same kind alive. Never rejected: an error shows
  // in the next read. Dropping the promise cancels the wait.
  virtual kj::Promise<void> whenReadable() = 0;
  virtual kj::Promise<void> whenWritable() = 0;

  // Ends both directions for the peer as well; later reads and writes give ENDED. A serial device is not closed by
  // this, since it has no such notion: it stays as it is and only this object stops using it.
  virtual void close() = 0;
};

}  // namespace postern
