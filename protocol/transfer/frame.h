#pragma once
// Frames of a transfer (protocol/transfer.capnp): a message and its content, to bytes and back.
//
// FrameReader cuts a byte stream, wherever it was cut before, into frames, and allocates no more than one frame's
// bound. A message is read under a traversal limit and is as untrusted as its bytes: entry.h and progress.h turn it
// into checked types.

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/transfer.capnp.h"
#include "protocol/transfer/limits.h"

namespace postern::transfer {

struct FrameError {
  kj::StringPtr rule;  // the one that was broken
};

// One whole frame, whose bytes belong to somebody else. Made by FrameReader alone, for bytes of others.
class FrameView {
 public:
  // `frame` is whole and in order; `message` are its message's words, aligned, in it or elsewhere.
  FrameView(kj::ArrayPtr<const kj::byte> frame, kj::ArrayPtr<const capnp::word> message);
  KJ_DISALLOW_COPY(FrameView);

  // Throws on a message that is malformed, as Cap'n Proto does; parseForward() and its like catch it.
  template <typename T>
  typename T::Reader as() {
    return reader.getRoot<T>();
  }
  kj::ArrayPtr<const kj::byte> content() const { return contentBytes; }
  // Header, message, content and padding.
  kj::ArrayPtr<const kj::byte> whole() const { return frame; }

 private:
  kj::ArrayPtr<const kj::byte> frame;
  kj::ArrayPtr<const kj::byte> contentBytes;
  kj::ArrayPtr<const capnp::word> segment[1];
  capnp::SegmentArrayMessageReader reader;
};

// How long the frame is that begins with these FRAME_HEADER_BYTES; or what is wrong with them.
kj::OneOf<size_t, FrameError> frameBytes(kj::ArrayPtr<const kj::byte> untrustedHeader);

// A message that is being made. One builder makes one message after the other: init(), fields, then bytes() and so on,
// after which the message must not be changed any more.
class FrameBuilder {
 public:
  FrameBuilder();
  KJ_DISALLOW_COPY(FrameBuilder);

  // Begins a message; what was made before is forgotten.
  template <typename T>
  typename T::Builder init() {
    return fresh().initRoot<T>();
  }
  // Of the frame with so much content. Our own bug if the message is larger than MAX_MESSAGE_BYTES.
  size_t bytes(size_t contentBytes);
  // Where content belongs, for whoever puts it there himself.
  size_t contentOffset();
  // Writes header, message and padding around content that lies in its place already. Bytes written, as of bytes().
  size_t close(kj::ArrayPtr<kj::byte> out, size_t contentBytes);
  // The same with the content copied, unless it is what lies there.
  size_t put(kj::ArrayPtr<kj::byte> out, kj::ArrayPtr<const kj::byte> content);
  kj::Array<kj::byte> toArray(kj::ArrayPtr<const kj::byte> content = nullptr);

 private:
  capnp::word scratch[256];  // most messages need no more; zeroed by each message's destructor
  kj::Maybe<capnp::MallocMessageBuilder> message;
  kj::Maybe<capnp::MallocMessageBuilder> joined;  // the same in one segment, if `message` has several

  capnp::MallocMessageBuilder& fresh();
  kj::ArrayPtr<const kj::byte> segment();
};

// Cuts bytes into frames. For a stream as well as for packets of whole frames: there, midFrame() behind the last frame
// of a packet is a breach.
class FrameReader {
 public:
  // The view belongs to this reader.
  using Next = kj::Maybe<kj::OneOf<FrameView*, FrameError>>;

  FrameReader() = default;
  KJ_DISALLOW_COPY(FrameReader);

  // The next whole frame of what was kept and of `bytes`, which is shortened by what was used; null: all was used, and
  // an incomplete frame is kept. The view lies in `bytes` where it can, else in this reader, and is valid until the
  // next call. A frame that is whole in `bytes` is not copied; if it does not begin at a word there, its message alone
  // is. After an error the reader must not be used any more.
  Next next(kj::ArrayPtr<const kj::byte>& bytes);
  // In the middle of a frame?
  bool midFrame() const { return have > 0; }

 private:
  kj::Array<capnp::word> buffer;  // grows to the frame that is incomplete
  size_t have = 0;                // bytes of it
  kj::Maybe<FrameView> view;

  kj::byte* room(size_t bytes);
  bool fill(kj::ArrayPtr<const kj::byte>& bytes, size_t until);
  Next keep(kj::ArrayPtr<const kj::byte>& bytes);
  Next hand(kj::ArrayPtr<const kj::byte> frame, kj::ArrayPtr<const capnp::word> message);
};

}  // namespace postern::transfer
