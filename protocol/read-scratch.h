#pragma once
// ReadScratch: the one buffer that all links of an event loop read into, so that an idle link holds none.
//
// A link may use it only between two returns to the event loop: what it has read and not handed out by then it must
// move out (FrameLink::park()). Lives as long as the loop.

#include <kj/array.h>

#include "protocol/limits.h"

namespace postern {

class ReadScratch {
 public:
  ReadScratch() : bytes(kj::heapArray<kj::byte>(limits::READ_BYTES)) {}
  KJ_DISALLOW_COPY(ReadScratch);

  kj::ArrayPtr<kj::byte> buffer() { return bytes; }

 private:
  kj::Array<kj::byte> bytes;
};

}  // namespace postern
