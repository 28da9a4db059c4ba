#include "protocol/frame-reader.h"

#include <string.h>

#include <algorithm>

namespace postern {

kj::OneOf<FrameReader::RawFrame, FrameReader::NeedMore, FrameReader::BadHeader, FrameReader::OverBound>
FrameReader::next(kj::ArrayPtr<kj::byte>& chunk, size_t maxBody) {
  handedOut = nullptr;
  if (partial == nullptr) {
    size_t n = std::min(FRAME_HEADER_BYTES - headerHave, chunk.size());
    memcpy(headerBytes + headerHave, chunk.begin(), n);
    headerHave += n;
    chunk = chunk.slice(n, chunk.size());
    if (headerHave < FRAME_HEADER_BYTES) return NeedMore();

    headerHave = 0;
    KJ_IF_MAYBE (parsed, parseFrameHeader(kj::arrayPtr(headerBytes, FRAME_HEADER_BYTES))) {
      header = *parsed;
    } else {
      return BadHeader();
    }
    size_t length = header.bodyLength;
    if (length > maxBody) return OverBound();
    if (chunk.size() >= length) {
      auto body = chunk.slice(0, length);
      chunk = chunk.slice(length, chunk.size());
      return RawFrame{header, body};
    }
    partial = kj::heapArray<kj::byte>(length);
    partialHave = 0;
  }

  size_t n = std::min(partial.size() - partialHave, chunk.size());
  memcpy(partial.begin() + partialHave, chunk.begin(), n);
  partialHave += n;
  chunk = chunk.slice(n, chunk.size());
  if (partialHave < partial.size()) return NeedMore();
  handedOut = kj::mv(partial);
  partial = nullptr;
  return RawFrame{header, handedOut.asPtr()};
}

void FrameReader::reset() {
  headerHave = 0;
  partial = nullptr;
  partialHave = 0;
}

}  // namespace postern
