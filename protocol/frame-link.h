#pragma once
// FrameLink: one connection on which HELLOs have been exchanged, as a sequence of frames.

#include <kj/async.h>
#include <kj/one-of.h>

#include "protocol/byte-pipe.h"
#include "protocol/frame.h"
#include "protocol/hello.h"

namespace postern {

// Why a link delivers no more frames. For logs and counters of this end; an unauthenticated peer learns none of it.
enum class LinkEnd {
  ENDED,           // the stream ended
  PEER_RESTARTED,  // serial: a SYNC with a new epoch, or the device lost its peer
  BAD_FRAME,       // header that is no frame, wrong tag (streams), body over the bound in force
  CLOSED,          // close() was called at this end
};

// No frame can be had now; wait for whenReadable().
struct NoFrame {};

// What a session reads from and writes to. Two implementations (transport/): StreamLink, where a foreign tag ends the
// link, and SerialLink's connection, where frames with a foreign tag are skipped as stale. A header that is none, or a
// body over the bound in force, ends either. Both deliver whole frames in order and never HELLO frames. Lives on one
// event loop; not reentrant. Owned by the session.
class FrameLink {
 public:
  virtual ~FrameLink() noexcept(false) {}

  // The two HELLOs this connection began with. Constant for the link's life.
  virtual const HelloPair& hellos() const = 0;

  // Until this is called, bodies are bounded by limits::MAX_HANDSHAKE_BODY_BYTES; after it, by MAX_FRAME_BODY_BYTES.
  virtual void authenticated() = 0;

  // Never blocks. Frames of one pipe read are handed out one call each; a frame's body is valid until the next call of
  // readFrame() or park(). After LinkEnd every further call gives the same.
  virtual kj::OneOf<Frame, NoFrame, LinkEnd> readFrame() = 0;
  // The caller will not call readFrame() again before it has returned to the event loop although the last call gave a
  // frame: bytes still unread are moved out of the process's shared buffer (read-scratch.h). After NoFrame or LinkEnd
  // there is nothing to move and no need to call this.
  virtual void park() = 0;
  virtual kj::Promise<void> whenReadable() = 0;

  // Takes as much as the pipe takes; the sum of all calls is a sequence of whole frames, though one call may end
  // anywhere in one.
  virtual PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) = 0;
  virtual kj::Promise<void> whenWritable() = 0;

  // Nothing more is read or written. On a stream the peer sees the end; on a serial line it sees the next SYNC.
  virtual void close() = 0;
};

}  // namespace postern
