#include "transport/frame-boundary.h"

#include <kj/array.h>

#include <algorithm>

#include "protocol/wire-int.h"

namespace postern {

void FrameBoundary::passed(kj::ArrayPtr<const kj::byte> bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (bodyLeft > 0) {
      size_t n = std::min(bodyLeft, bytes.size() - at);
      bodyLeft -= n;
      at += n;
      continue;
    }
    if (headerBytes < sizeof(length)) length[headerBytes] = bytes[at];
    ++at;
    if (++headerBytes == FRAME_HEADER_BYTES) {
      headerBytes = 0;
      bodyLeft = getLittleEndian<uint16_t>(length);
    }
  }
}

}  // namespace postern
