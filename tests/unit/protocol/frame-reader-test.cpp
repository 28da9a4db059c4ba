#include "protocol/frame-reader.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace postern {
namespace {

std::vector<kj::byte> frameBytes(size_t length, kj::byte fill) {
  std::vector<kj::byte> bytes(FRAME_HEADER_BYTES + length, fill);
  writeFrameHeader({static_cast<uint16_t>(length), FrameKind::RECORD, {fill, 0, 0, 0}},
                   kj::arrayPtr(bytes.data(), bytes.size()));
  return bytes;
}

// Feeds `bytes` in chunks of `step` and returns the lengths and fill bytes of the frames that came out.
std::vector<std::pair<size_t, int>> readAll(FrameReader& reader, std::vector<kj::byte> bytes, size_t step) {
  std::vector<std::pair<size_t, int>> frames;
  for (size_t at = 0; at < bytes.size(); at += step) {
    auto chunk = kj::arrayPtr(bytes.data() + at, std::min(step, bytes.size() - at));
    // Not KJ_SWITCH_ONEOF: it hides a loop, in which `continue` would mean something else.
    for (auto result = reader.next(chunk, MAX_FRAME_BODY_BYTES); !result.is<FrameReader::NeedMore>();
         result = reader.next(chunk, MAX_FRAME_BODY_BYTES)) {
      REQUIRE(result.is<FrameReader::RawFrame>());
      auto& frame = result.get<FrameReader::RawFrame>();
      bool isFilled =
          std::all_of(frame.body.begin(), frame.body.end(), [&](kj::byte b) { return b == frame.header.tag[0]; });
      CHECK(isFilled);
      frames.emplace_back(frame.body.size(), frame.header.tag[0]);
    }
  }
  return frames;
}

TEST_CASE("frames come out the same however the stream is cut") {
  std::vector<kj::byte> bytes;
  std::vector<std::pair<size_t, int>> expected;
  kj::byte fill = 1;
  for (size_t length : {0, 1, 7, 8, 9, 300, 0, 0, 1000}) {
    auto one = frameBytes(length, fill);
    bytes.insert(bytes.end(), one.begin(), one.end());
    expected.emplace_back(length, fill++);
  }
  for (size_t step = 1; step <= bytes.size(); ++step) {
    FrameReader reader;
    CHECK(readAll(reader, bytes, step) == expected);
    CHECK(!reader.midFrame());
  }
}

TEST_CASE("the longest frame is read whole and in pieces") {
  auto bytes = frameBytes(MAX_FRAME_BODY_BYTES, 9);
  for (size_t step : {size_t(1000), size_t(65536), bytes.size()}) {
    FrameReader reader;
    CHECK(readAll(reader, bytes, step).size() == 1);
  }
}

// T21
TEST_CASE("a body over the bound is refused from its header alone") {
  auto bytes = frameBytes(257, 1);
  FrameReader reader;
  auto chunk = kj::arrayPtr(bytes.data(), FRAME_HEADER_BYTES);
  CHECK(reader.next(chunk, 256).is<FrameReader::OverBound>());
}

TEST_CASE("a header that is none is refused") {
  auto bytes = frameBytes(4, 1);
  bytes[2] = 9;
  FrameReader reader;
  auto chunk = kj::arrayPtr(bytes.data(), bytes.size());
  CHECK(reader.next(chunk, 256).is<FrameReader::BadHeader>());
}

TEST_CASE("reset forgets an unfinished frame") {
  auto bytes = frameBytes(100, 1);
  FrameReader reader;
  auto chunk = kj::arrayPtr(bytes.data(), 50);
  CHECK(reader.next(chunk, 256).is<FrameReader::NeedMore>());
  CHECK(reader.midFrame());
  reader.reset();
  CHECK(!reader.midFrame());
  CHECK(readAll(reader, bytes, bytes.size()).size() == 1);
}

}  // namespace
}  // namespace postern
