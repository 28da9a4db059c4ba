// FrameReader over any bytes: the frames are those that a straightforward reading of the whole gives, wherever the
// chunks begin and end.
//
// input = u8 bound (odd: that of a session, even: that before authentication) | u8 number of chunk sizes | chunk sizes
//         | the stream

#include <string.h>

#include <vector>

#include "protocol/frame-reader.h"
#include "protocol/limits.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

struct Event {
  enum Kind { FRAME, BAD_HEADER, OVER_BOUND } kind;
  FrameHeader header{};
  size_t bodyAt = 0;  // in the stream

  bool operator==(const Event& other) const {
    return kind == other.kind && (kind != FRAME || (header.bodyLength == other.header.bodyLength &&
                                                    header.kind == other.header.kind && bodyAt == other.bodyAt));
  }
};

struct Reading {
  std::vector<Event> events;
  bool midFrame = false;
};

// What frame.h says, once more and over the whole stream.
Reading readWhole(Bytes stream, size_t maxBody) {
  Reading result;
  size_t at = 0;
  while (stream.size() - at >= FRAME_HEADER_BYTES) {
    auto* header = stream.begin() + at;
    auto length = static_cast<uint16_t>(header[0] | header[1] << 8);
    if (header[2] < 1 || header[2] > 3 || header[3] != 0) {
      result.events.push_back({Event::BAD_HEADER});
      at += FRAME_HEADER_BYTES;
    } else if (length > maxBody) {
      result.events.push_back({Event::OVER_BOUND});
      at += FRAME_HEADER_BYTES;
    } else if (stream.size() - at < FRAME_HEADER_BYTES + length) {
      break;
    } else {
      auto kind = static_cast<FrameKind>(header[2]);
      result.events.push_back({Event::FRAME, {length, kind, {}}, at + FRAME_HEADER_BYTES});
      at += FRAME_HEADER_BYTES + length;
    }
  }
  result.midFrame = at < stream.size();
  return result;
}

// One stream, given to one FrameReader chunk by chunk.
class ChunkedReading {
 public:
  ChunkedReading(Bytes stream, size_t maxBody) : stream(stream), maxBody(maxBody) {}

  void give(size_t size) {
    auto chunk = copyOf(stream.slice(given, given + std::min(size, stream.size() - given)));
    given += chunk.size();
    kj::ArrayPtr<kj::byte> rest = chunk;
    for (;;) {
      auto next = reader.next(rest, maxBody);
      KJ_SWITCH_ONEOF(next) {
        KJ_CASE_ONEOF(_, FrameReader::NeedMore) {
          expect(rest.size() == 0, "a reader that needs more has taken the whole chunk");
          return;
        }
        KJ_CASE_ONEOF(_, FrameReader::BadHeader) {
          result.events.push_back({Event::BAD_HEADER});
        }
        KJ_CASE_ONEOF(_, FrameReader::OverBound) {
          result.events.push_back({Event::OVER_BOUND});
        }
        KJ_CASE_ONEOF(frame, FrameReader::RawFrame) {
          expect(frame.body.size() == frame.header.bodyLength, "a body has the length of its header");
          size_t end = given - rest.size();
          size_t bodyAt = end - frame.body.size();
          expect(memcmp(frame.body.begin(), stream.begin() + bodyAt, frame.body.size()) == 0,
                 "a body has the stream's bytes");
          result.events.push_back({Event::FRAME, frame.header, bodyAt});
        }
      }
    }
  }

  bool isDone() const { return given == stream.size(); }

  void judge(const Reading& expected) {
    expect(result.events == expected.events, "the frames do not depend on the chunks");
    expect(reader.midFrame() == expected.midFrame, "a reader knows whether it is in a frame");
  }

 private:
  Bytes stream;
  size_t maxBody;
  size_t given = 0;
  FrameReader reader;
  Reading result;
};

void run(Input input) {
  size_t maxBody = input.u8() % 2 == 0 ? limits::MAX_HANDSHAKE_BODY_BYTES : MAX_FRAME_BODY_BYTES;
  auto sizes = input.take(input.u8());
  auto stream = input.takeAll();
  auto expected = readWhole(stream, maxBody);

  ChunkedReading whole(stream, maxBody);
  whole.give(stream.size());
  whole.judge(expected);

  // A stream of 64 KiB in single bytes is slow and shows nothing that a shorter one does not.
  if (stream.size() <= 4096) {
    ChunkedReading bytes(stream, maxBody);
    while (!bytes.isDone()) bytes.give(1);
    bytes.judge(expected);
  }

  ChunkedReading chunks(stream, maxBody);
  for (size_t size : sizes) chunks.give(size);
  chunks.give(stream.size());
  chunks.judge(expected);
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
