#include "protocol/frame.h"

#include <doctest/doctest.h>

namespace postern {
namespace {

TEST_CASE("a frame header survives the way through bytes") {
  kj::byte bytes[FRAME_HEADER_BYTES];
  writeFrameHeader({65535, FrameKind::RECORD, {1, 2, 3, 4}}, bytes);
  KJ_IF_MAYBE (header, parseFrameHeader(bytes)) {
    CHECK(header->bodyLength == 65535);
    CHECK(header->kind == FrameKind::RECORD);
    CHECK(header->tag == LinkTag{1, 2, 3, 4});
  } else {
    FAIL("refused its own header");
  }
}

TEST_CASE("every value of the kind and reserved bytes that is not defined is refused") {
  for (unsigned kind = 0; kind < 256; ++kind) {
    for (unsigned reserved = 0; reserved < 256; ++reserved) {
      const kj::byte bytes[FRAME_HEADER_BYTES] = {0, 0, kj::byte(kind), kj::byte(reserved), 0, 0, 0, 0};
      bool accepted = parseFrameHeader(bytes) != nullptr;
      CHECK(accepted == (kind >= 1 && kind <= 3 && reserved == 0));
    }
  }
}

}  // namespace
}  // namespace postern
