#include "protocol/transfer/frame.h"

#include <stdlib.h>

#include <algorithm>
#include <vector>

#include "protocol/wire-int.h"
#include "tests/unit/protocol/transfer-fixture.h"

namespace postern::transfer {
namespace {

using Bytes = std::vector<kj::byte>;

Bytes copied(kj::ArrayPtr<const kj::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

// Frames of `bytes`, which arrive in pieces that end at multiples of `step`; then the rule that was broken, if one was.
struct Cut {
  std::vector<Bytes> frames;
  std::string rule;
  bool midFrame;
};
Cut cut(kj::ArrayPtr<const kj::byte> bytes, size_t step) {
  Cut result;
  FrameReader reader;
  for (size_t at = 0; at < bytes.size(); at += step) {
    // Each in an allocation of its own, so that what is read beyond it is seen.
    auto piece = kj::heapArray<kj::byte>(bytes.slice(at, std::min(at + step, bytes.size())));
    kj::ArrayPtr<const kj::byte> rest = piece;
    for (;;) {
      auto next = reader.next(rest);
      KJ_IF_MAYBE (got, next) {
        KJ_IF_MAYBE (error, got->tryGet<FrameError>()) {
          result.rule = error->rule.cStr();
          return result;
        }
        result.frames.push_back(copied(got->get<FrameView*>()->whole()));
      } else {
        CHECK(rest.size() == 0);
        break;
      }
    }
  }
  result.midFrame = reader.midFrame();
  return result;
}

Bytes joined(const std::vector<Bytes>& frames) {
  Bytes all;
  for (auto& frame : frames) all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

// T66
TEST_CASE("transfer frames come out the same wherever the stream is cut") {
  auto sample = sampleForward();
  auto whole = cut(sample, sample.size());
  CHECK(whole.frames.size() == 18);
  CHECK((joined(whole.frames) == copied(sample)));
  for (size_t step = 1; step < sample.size(); ++step) {
    auto pieces = cut(sample, step);
    CHECK(pieces.rule.empty());
    CHECK_FALSE(pieces.midFrame);
    REQUIRE((pieces.frames == whole.frames));
  }
}

TEST_CASE("a transfer frame that is cut off at any byte gives the frames before it, and no more") {
  auto sample = sampleForward();
  auto whole = cut(sample, sample.size());
  for (size_t size = 0; size < sample.size(); ++size) {
    auto some = cut(sample.slice(0, size), std::max<size_t>(size, 1));
    size_t bytes = 0, frames = 0;
    while (bytes + whole.frames[frames].size() <= size) bytes += whole.frames[frames++].size();
    CHECK(some.rule.empty());
    CHECK(some.frames.size() == frames);
    CHECK(some.midFrame == (bytes < size));
  }
}

TEST_CASE("a transfer frame that is whole where it lies is not copied, and only its message where it lies crooked") {
  auto frame = frameOf(forward(Data{4096}), bytesOf(DATA_BYTES));
  auto space = kj::heapArray<capnp::word>(frame.size() / 8 + 1);
  for (size_t shift = 0; shift < 8; ++shift) {
    auto place = space.asBytes().begin() + shift;
    memcpy(place, frame.begin(), frame.size());
    kj::ArrayPtr<const kj::byte> rest(place, frame.size());
    FrameReader reader;
    auto next = reader.next(rest);
    auto& view = *KJ_ASSERT_NONNULL(next).get<FrameView*>();
    CHECK(view.whole().begin() == place);
    CHECK(view.content().size() == DATA_BYTES);
    CHECK(view.content().begin() > place);
    CHECK(view.content().end() <= place + frame.size());
    CHECK(view.as<schema::Forward>().getData().getOffset() == 4096);
    CHECK(rest.size() == 0);
  }
}

TEST_CASE("a transfer frame's header is refused by its own eight bytes") {
  auto header = [](uint32_t message, uint32_t content) {
    kj::byte bytes[FRAME_HEADER_BYTES];
    putLittleEndian(message, bytes);
    putLittleEndian(content, bytes + 4);
    auto found = frameBytes(bytes);
    kj::ArrayPtr<const kj::byte> rest = bytes;
    FrameReader reader;
    auto next = reader.next(rest);
    bool isError = false;
    KJ_IF_MAYBE (got, next) isError = got->is<FrameError>();
    CHECK(isError == found.is<FrameError>());
    return found.is<size_t>() ? found.get<size_t>() : 0;
  };
  CHECK(header(8, 0) == 16);
  CHECK(header(8, 1) == 24);
  CHECK(header(8, 8) == 24);
  CHECK(header(MAX_MESSAGE_BYTES, DATA_BYTES) == MAX_FRAME_BYTES);
  for (uint32_t message : {0u, 1u, 7u, 9u, 12u, uint32_t(MAX_MESSAGE_BYTES) + 8, 0x80000000u, 0xfffffff8u, ~0u}) {
    INFO(message);
    CHECK(header(message, 0) == 0);
  }
  for (uint32_t content : {uint32_t(DATA_BYTES) + 1, 0x80000000u, ~0u}) {
    INFO(content);
    CHECK(header(8, content) == 0);
  }
}

TEST_CASE("padding of a transfer frame that is not zero is refused") {
  for (size_t content = 1; content <= 8; ++content) {
    auto frame = frameOf(forward(Data{0}), bytesOf(content));
    for (size_t at = frame.size() - (8 - content); at < frame.size(); ++at) {
      frame[at] = 1;
      for (size_t step : {size_t(1), frame.size()}) CHECK(cut(frame, step).rule == "a frame's padding is zero");
      frame[at] = 0;
    }
    CHECK(cut(frame, frame.size()).rule.empty());
  }
}

TEST_CASE("one frame builder makes one message after another, each as a builder of its own would") {
  FrameBuilder builder;
  auto made = [&](const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    write(message, builder.init<schema::Forward>());
    return copied(builder.toArray(content));
  };
  // Short, long (over the scratch), short: nothing of one is left in the next.
  auto large = fullEntry(EntryKind::FILE);
  large.attributes.add(Attribute{kj::str("user.large"), bytesOf(20'000)});
  for (int round = 0; round < 3; ++round) {
    CHECK((made(forward(Leave())) == copied(frameOf(forward(Leave())))));
    CHECK((made(forward(Data{7}), bytesOf(9)) == copied(frameOf(forward(Data{7}), bytesOf(9)))));
    auto failed = forward(EntryFailed{kj::str("a"), someProblem()});
    CHECK((made(failed) == copied(frameOf(failed))));
    auto again = fullEntry(EntryKind::FILE);
    again.attributes.add(Attribute{kj::str("user.large"), bytesOf(20'000)});
    CHECK((made(forward(kj::mv(again))).size() > 20'000));
  }
}

TEST_CASE("content that lies in its place already is closed around, and a message over the bound is our own bug") {
  FrameBuilder builder;
  write(forward(Data{5}), builder.init<schema::Forward>());
  auto space = kj::heapArray<kj::byte>(builder.bytes(11));
  memset(space.begin(), 0xee, space.size());
  memset(space.begin() + builder.contentOffset(), 'x', 11);
  CHECK(builder.close(space, 11) == space.size());
  CHECK((copied(space) == copied(frameOf(forward(Data{5}), bytesOf(11)))));
  auto short_ = kj::heapArray<kj::byte>(space.size() - 1);
  CHECK_THROWS(builder.close(short_, 11));

  auto entry = entryOf(EntryKind::FILE, "a");
  entry.attributes.add(Attribute{kj::str("user.a"), bytesOf(MAX_MESSAGE_BYTES)});
  write(forward(kj::mv(entry)), builder.init<schema::Forward>());
  CHECK_THROWS(builder.toArray());
}

}  // namespace
}  // namespace postern::transfer
