#pragma once
// Frames: the outermost unit on every link.
//
//   frame = u16 bodyLength (little-endian) | u8 kind | u8 0 | u8 linkTag[4] | body
//
// bodyLength counts the body alone. linkTag is zero in HELLO frames; in all others it is linkTag() of both HELLOs
// (hello.h): a filter for frames of an earlier session on the same pipe. It is not security.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <stdint.h>

#include <array>

namespace postern {

constexpr size_t FRAME_HEADER_BYTES = 8;
constexpr size_t MAX_FRAME_BODY_BYTES = 65535;
constexpr size_t MAX_FRAME_BYTES = FRAME_HEADER_BYTES + MAX_FRAME_BODY_BYTES;

enum class FrameKind : uint8_t { HELLO = 1, HANDSHAKE = 2, RECORD = 3 };

using LinkTag = std::array<kj::byte, 4>;

struct FrameHeader {
  uint16_t bodyLength;
  FrameKind kind;
  LinkTag tag;
};

// A frame that has arrived. The body lies in the link's buffer: it may be changed in place (that is how records are
// opened) and is valid until the next call on the link.
struct Frame {
  FrameKind kind;
  kj::ArrayPtr<kj::byte> body;
};

void writeFrameHeader(const FrameHeader& header, kj::ArrayPtr<kj::byte> out);

// Null when the kind is unknown or the reserved byte is not 0. Every length is legal here; callers have their own
// bound.
kj::Maybe<FrameHeader> parseFrameHeader(kj::ArrayPtr<const kj::byte> untrustedHeader);

}  // namespace postern
