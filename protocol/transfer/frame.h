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

// One whole frame, whose bytes belong to somebody else.
class FrameView {
 public:
  // `frame` is whole, checked by parseFrame() and aligned to words.
  explicit FrameView(kj::ArrayPtr<const kj::byte> frame);
  KJ_DISALLOW_COPY(FrameView);

  // Throws on a message that is malformed, as Cap'n Proto does; the functions of entry.h and progress.h catch it.
  template <typename T>
  typename T::Reader as() {
    return reader.getRoot<T>();
  }
  kj::ArrayPtr<const kj::byte> content() const { return contentBytes; }
  // Header, message, content and padding.
  kj::ArrayPtr<const kj::byte> whole() const { return frame; }

 private:
  kj::ArrayPtr<const kj::byte> frame;
  kj::ArrayPtr<const capnp::word> segment[1];
  kj::ArrayPtr<const kj::byte> contentBytes;
  capnp::SegmentArrayMessageReader reader;
};

// How long the frame is that begins with these FRAME_HEADER_BYTES; or what is wrong with them.
kj::OneOf<size_t, FrameError> frameBytes(kj::ArrayPtr<const kj::byte> untrustedHeader);

// A message that is being made.
class FrameBuilder {
 public:
  FrameBuilder();
  KJ_DISALLOW_COPY(FrameBuilder);

  template <typename T>
  typename T::Builder init() {
    return message.initRoot<T>();
  }
  // Of the frame with so much content. Our own bug if the message is larger than MAX_MESSAGE_BYTES or in two segments.
  size_t bytes(size_t contentBytes);
  // Where content belongs, for whoever puts it there himself.
  size_t contentOffset();
  // Writes header, message and padding around content that lies in its place already. Bytes written, as of bytes().
  size_t close(kj::ArrayPtr<kj::byte> out, size_t contentBytes);
  // The same with the content copied.
  size_t put(kj::ArrayPtr<kj::byte> out, kj::ArrayPtr<const kj::byte> content);
  kj::Array<kj::byte> toArray(kj::ArrayPtr<const kj::byte> content = nullptr);

 private:
  capnp::word scratch[256];  // zeroed: most messages need no allocation
  capnp::MallocMessageBuilder message;
};

class FrameReader {
 public:
  using Next = kj::Maybe<kj::OneOf<kj::Own<FrameView>, FrameError>>;

  // The next whole frame of what was kept and of `bytes`, which is shortened by what was used; null: all was used, and
  // an incomplete frame is kept. The view lies in `bytes` where it can, else in this reader, until the next call. After
  // an error the reader must not be used any more.
  Next next(kj::ArrayPtr<const kj::byte>& bytes);
  // In the middle of a frame?
  bool midFrame() const { return have > 0; }

 private:
  kj::Array<kj::byte> buffer;  // aligned; grows to the frame that is incomplete
  size_t have = 0;
};

}  // namespace postern::transfer
