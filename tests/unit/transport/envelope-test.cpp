#include "transport/transfer/envelope.h"

#include <doctest/doctest.h>

#include "protocol/transfer/opener-message.h"
#include "tests/support/test-random.h"
#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

// Aligned, as packets are.
kj::ArrayPtr<kj::byte> aligned(kj::Array<capnp::word>& words, kj::ArrayPtr<const kj::byte> bytes) {
  words = kj::heapArray<capnp::word>((bytes.size() + 7) / 8);
  memcpy(words.asBytes().begin(), bytes.begin(), bytes.size());
  return words.asBytes().slice(0, bytes.size());
}

Entry richEntry() {
  auto entry = lab::fileEntry("name", 100);
  entry.inlined = true;
  entry.owner = kj::str("somebody");
  entry.hash = kj::heapArray<kj::byte>(HASH_BYTES);
  entry.attributes.add(Attribute{kj::str("user.comment"), kj::heapArray<kj::byte>(5000)});
  memset(entry.attributes[0].value.begin(), 3, 5000);
  return entry;
}

TEST_CASE("what is taken out of an envelope, and put into another, is the same message with its content") {
  auto content = kj::heapArray<kj::byte>(100);
  memset(content.begin(), 5, content.size());
  FrameBuilder builder;
  write(Forward(richEntry()), builder.init<schema::ToMover>().initForward());
  kj::Array<capnp::word> words;
  auto frame = aligned(words, builder.toArray(content));
  CHECK(takeOut(frame, Envelope::BACKWARD) == nullptr);
  auto inside = KJ_ASSERT_NONNULL(takeOut(frame, Envelope::FORWARD));
  CHECK(inside.end() == frame.end());
  FrameView view(inside, messageOf(inside));
  CHECK((view.content() == content.asPtr()));
  auto parsed = parseForward(view);
  CHECK(parsed.get<Forward>().get<Entry>().attributes[0].value.size() == 5000);

  kj::Array<capnp::word> outer = kj::heapArray<capnp::word>((inside.size() + envelopeBytes()) / 8);
  REQUIRE(putIn(inside, Envelope::FORWARD, outer.asBytes()));
  kj::ArrayPtr<const kj::byte> bytes = outer.asBytes();
  FrameReader reader;
  auto again = reader.next(bytes);
  auto& outerView = *KJ_ASSERT_NONNULL(again).get<FrameView*>();
  CHECK((outerView.content() == content.asPtr()));
  auto toOpener = parseToOpener(outerView);
  auto& entry = toOpener.get<ToOpener>().get<Forward>().get<Entry>();
  CHECK(entry.owner == "somebody");
  CHECK(entry.attributes[0].value[4999] == 3);
}

TEST_CASE("backward messages have envelopes of their own") {
  FrameBuilder builder;
  write(Backward(Progress{3, 4}), builder.init<schema::ToMover>().initBackward());
  kj::Array<capnp::word> words;
  auto frame = aligned(words, builder.toArray());
  CHECK(takeOut(frame, Envelope::FORWARD) == nullptr);
  auto inside = KJ_ASSERT_NONNULL(takeOut(frame, Envelope::BACKWARD));
  FrameView view(inside, messageOf(inside));
  CHECK(parseBackward(view).get<Backward>().get<Progress>().bytes == 4);
}

TEST_CASE("an opened is in no envelope, and a message that would become too long is put into none") {
  FrameBuilder builder;
  write(Opened{1, false, true}, builder.init<schema::ToMover>().initOpened());
  kj::Array<capnp::word> words;
  auto frame = aligned(words, builder.toArray());
  CHECK(takeOut(frame, Envelope::FORWARD) == nullptr);
  CHECK(takeOut(frame, Envelope::BACKWARD) == nullptr);

  auto longest = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + MAX_MESSAGE_BYTES);
  memset(longest.begin(), 0, longest.size());
  uint32_t bytes = MAX_MESSAGE_BYTES;
  memcpy(longest.begin(), &bytes, sizeof(bytes));
  auto out = kj::heapArray<kj::byte>(longest.size() + envelopeBytes());
  CHECK(!putIn(longest, Envelope::FORWARD, out));
}

TEST_CASE("whatever byte of a frame in its envelope is changed, what is inside parses or is refused") {
  postern::test::TestRandom random;
  FrameBuilder builder;
  auto entry = lab::fileEntry("name", 0);
  entry.owner = kj::str("somebody");
  write(Forward(kj::mv(entry)), builder.init<schema::ToMover>().initForward());
  auto whole = builder.toArray();
  for (size_t at = FRAME_HEADER_BYTES; at < whole.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      kj::Array<capnp::word> words;
      auto frame = aligned(words, whole);
      frame[at] = kj::byte(frame[at] ^ (1u << bit));
      KJ_IF_MAYBE (inside, takeOut(frame, Envelope::FORWARD)) {
        FrameView view(*inside, messageOf(*inside));
        auto parsed = parseForward(view);
        CHECK((parsed.is<Forward>() || parsed.is<FrameError>()));
      }
    }
  }
}

}  // namespace
}  // namespace postern::transfer
