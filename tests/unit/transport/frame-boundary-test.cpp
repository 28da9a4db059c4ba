#include "transport/frame-boundary.h"

#include <doctest/doctest.h>

#include "tests/support/serial-probe.h"

using namespace postern;
using namespace postern::test;

TEST_CASE(
    "the end of each frame is known however its bytes are cut, and never passed by what certainly belongs to it") {
  auto bytes = joined({frameOf(FrameKind::RECORD, {}, filled(300, 1)), frameOf(FrameKind::RECORD, {}, nullptr),
                       frameOf(FrameKind::HANDSHAKE, {}, filled(1, 1)), frameOf(FrameKind::RECORD, {}, filled(7, 9))});
  const size_t ends[] = {0, 308, 316, 325, 340};
  REQUIRE(bytes.size() == 340);
  auto nextEnd = [&](size_t at) {
    for (size_t end : ends) {
      if (end >= at) return end;
    }
    return size_t(0);
  };
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    FrameBoundary boundary;
    for (size_t at = 0; at < bytes.size();) {
      size_t n = kj::min(piece, bytes.size() - at);
      boundary.passed(bytes.slice(at, at + n));
      at += n;
      REQUIRE(boundary.isAtBoundary() == (nextEnd(at) == at));
      REQUIRE(at + boundary.certainlyInFrame() <= nextEnd(at));
      REQUIRE((boundary.certainlyInFrame() == 0) == boundary.isAtBoundary());
    }
  }
}

TEST_CASE("a frame that is given up leaves a boundary") {
  FrameBoundary boundary;
  boundary.passed(filled(3, 1));
  CHECK(!boundary.isAtBoundary());
  boundary.reset();
  CHECK(boundary.isAtBoundary());
  boundary.passed(frameOf(FrameKind::RECORD, {}, filled(10, 1)).slice(0, 12));
  CHECK(boundary.certainlyInFrame() == 6);
  boundary.reset();
  CHECK(boundary.isAtBoundary());
}
