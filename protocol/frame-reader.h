#pragma once
// FrameReader: cuts a stream of bytes into frames, wherever the stream's chunks begin and end.
//
// A frame that lies whole in a chunk is handed out where it lies; only a frame that does not is copied together, in an
// allocation of exactly its length that is gone with the frame. So a link without an unfinished frame holds nothing.

#include <kj/array.h>
#include <kj/one-of.h>

#include "protocol/frame.h"

namespace postern {

class FrameReader {
 public:
  struct RawFrame {
    FrameHeader header;
    kj::ArrayPtr<kj::byte> body;  // valid until the next call, and while the chunk is
  };
  struct NeedMore {};   // the chunk is used up
  struct BadHeader {};  // not a frame: the stream is out of step, or hostile
  struct OverBound {};  // a body longer than `maxBody`; found before anything is allocated

  // Takes one frame, or what there is of one, from the front of `chunk`, which is moved forward by what was taken.
  // After BadHeader and OverBound the reader is as new and `chunk` still begins behind the header.
  kj::OneOf<RawFrame, NeedMore, BadHeader, OverBound> next(kj::ArrayPtr<kj::byte>& chunk, size_t maxBody);

  // Forgets an unfinished frame.
  void reset();
  bool midFrame() const { return headerHave > 0 || partial.size() > 0; }

 private:
  kj::byte headerBytes[FRAME_HEADER_BYTES];
  size_t headerHave = 0;
  FrameHeader header{};
  kj::Array<kj::byte> partial;  // of the frame's whole length; null while only the header is incomplete
  size_t partialHave = 0;
  kj::Array<kj::byte> handedOut;  // keeps an assembled frame alive until the next call
};

}  // namespace postern
