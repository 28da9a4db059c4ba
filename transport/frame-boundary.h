#pragma once
// FrameBoundary: follows a sequence of frames, written in pieces of any size, and knows where one ends.

#include <kj/common.h>
#include <stddef.h>

#include "protocol/frame.h"

namespace postern {

class FrameBoundary {
 public:
  // These bytes have been written.
  void passed(kj::ArrayPtr<const kj::byte> bytes);
  // The frame that was being written is given up.
  void reset() { *this = FrameBoundary(); }

  bool isAtBoundary() const { return headerBytes == 0 && bodyLeft == 0; }
  // How many of the next bytes certainly belong to the frame that has begun; 0 only at a boundary.
  size_t certainlyInFrame() const { return headerBytes > 0 ? FRAME_HEADER_BYTES - headerBytes : bodyLeft; }

 private:
  size_t headerBytes = 0;  // of the frame's header, when not yet all of it has passed
  size_t bodyLeft = 0;
  kj::byte length[2] = {0, 0};
};

}  // namespace postern
