#pragma once
// OpenerSocket: the opener's end of the socket to its mover, for a program that waits: SOCK_SEQPACKET, whole frames in
// each packet, up to two descriptors beside one that brings an `opened` or an entry (protocol/transfer.capnp).
//
// Blocks in the calling thread. shutdown(2) of the descriptor, by another thread, ends every wait: then it says that
// the mover has gone. Signals do not end a wait. Descriptors that a mover sends are not taken.

#include <kj/array.h>
#include <kj/function.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/time.h>

#include "protocol/transfer/frame.h"

namespace postern::transfer {

struct MoverGone {};

class OpenerSocket {
 public:
  explicit OpenerSocket(kj::AutoCloseFd socket);
  KJ_DISALLOW_COPY(OpenerSocket);

  // Frames are gathered and go as one packet when PACKET_FILL_BYTES are there, with a descriptor, or at flush(). False:
  // the mover has gone. Descriptors stay the caller's.
  [[nodiscard]] bool put(FrameBuilder& frame, kj::ArrayPtr<const kj::byte> content = nullptr,
                         kj::ArrayPtr<const int> descriptors = nullptr);
  // Room for content of the frame that comes next, so that a file is read to where it is sent from: then
  // put(frame, first bytes of it). Valid until the next call.
  kj::ArrayPtr<kj::byte> contentSpace(FrameBuilder& frame, size_t contentBytes);
  [[nodiscard]] bool flush();
  // Called while a packet does not go out, when something has come: it takes all that next() has, and puts nothing. So
  // two ends that both have much to say do not wait for each other. False ends the wait: then the mover counts as gone.
  void whileBlocked(kj::Function<bool()> takeAll) { blocked = kj::mv(takeAll); }

  // The next frame of what has come. Waits at most `limit` (null: for ever); null after that. The view is valid until
  // the next call.
  kj::Maybe<kj::OneOf<FrameView*, FrameError, MoverGone>> next(kj::Maybe<kj::Duration> limit);
  // Whether next() would have something without waiting.
  bool hasNext();

  int descriptor() const { return socket; }

 private:
  kj::AutoCloseFd socket;
  kj::Array<capnp::word> outgoingWords;  // frames lie at words
  kj::Array<capnp::word> incomingWords;
  kj::ArrayPtr<kj::byte> outgoing;
  kj::ArrayPtr<kj::byte> incoming;
  size_t filled = 0;
  kj::ArrayPtr<const kj::byte> rest;  // of the packet that came last
  FrameReader reader;
  bool gone = false;
  bool truncated = false;  // a packet was longer than any may be
  kj::Maybe<kj::Function<bool()>> blocked;

  bool send(kj::ArrayPtr<const int> descriptors);
  bool awaitRoom();
  // Whether something is there, or `limit` passed.
  bool receive(kj::Maybe<kj::Duration> limit);
};

}  // namespace postern::transfer
