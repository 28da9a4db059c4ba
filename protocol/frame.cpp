#include "protocol/frame.h"

#include <kj/debug.h>
#include <string.h>

namespace postern {

void writeFrameHeader(const FrameHeader& header, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() >= FRAME_HEADER_BYTES);
  out[0] = static_cast<kj::byte>(header.bodyLength & 0xff);
  out[1] = static_cast<kj::byte>(header.bodyLength >> 8);
  out[2] = static_cast<kj::byte>(header.kind);
  out[3] = 0;
  memcpy(out.begin() + 4, header.tag.data(), header.tag.size());
}

kj::Maybe<FrameHeader> parseFrameHeader(kj::ArrayPtr<const kj::byte> untrustedHeader) {
  KJ_REQUIRE(untrustedHeader.size() >= FRAME_HEADER_BYTES);
  if (untrustedHeader[3] != 0) return nullptr;
  switch (untrustedHeader[2]) {
    case static_cast<kj::byte>(FrameKind::HELLO):
    case static_cast<kj::byte>(FrameKind::HANDSHAKE):
    case static_cast<kj::byte>(FrameKind::RECORD):
      break;
    default:
      return nullptr;
  }
  FrameHeader header{};
  header.bodyLength = static_cast<uint16_t>(untrustedHeader[0] | (untrustedHeader[1] << 8));
  header.kind = static_cast<FrameKind>(untrustedHeader[2]);
  memcpy(header.tag.data(), untrustedHeader.begin() + 4, header.tag.size());
  return header;
}

}  // namespace postern
