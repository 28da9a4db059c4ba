// A file transfer's frames and messages over any bytes: the frames do not depend on where the stream was cut; what the
// parsers take is within its bounds, is written and read again as the same; and what the checks let pass stays within
// what they promise.
//
// input = u8 flags | u8 entries that were sent, for the backward direction | u8 number of piece sizes | piece sizes
//         | the stream
//   flags % 4      0 forward  1 backward  2 what an opener says to its mover  3 what a mover says to its opener
//   flags / 4 % 3  form of the forward check; flags / 16 % 2: every base that is wanted is told, as large as the file

#include <string.h>

#include <string>
#include <vector>

#include "protocol/transfer/backward-check.h"
#include "protocol/transfer/forward-check.h"
#include "protocol/transfer/opener-message.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

using namespace transfer;
using Bytes = kj::ArrayPtr<const kj::byte>;

// Frames -------------------------------------------------------------------------------------------------------------

struct Reading {
  std::vector<std::string> frames;
  std::string rule;
  bool midFrame = false;

  bool operator==(const Reading& other) const {
    return frames == other.frames && rule == other.rule && (!rule.empty() || midFrame == other.midFrame);
  }
};

// False behind an error.
bool give(FrameReader& reader, Bytes piece, Reading& result) {
  auto copy = copyOf(piece);
  Bytes rest = copy;
  for (;;) {
    auto next = reader.next(rest);
    KJ_IF_MAYBE (got, next) {
      KJ_IF_MAYBE (error, got->tryGet<FrameError>()) {
        result.rule = error->rule.cStr();
        return false;
      }
      auto frame = got->get<FrameView*>()->whole();
      expect(frame.size() % 8 == 0 && frame.size() <= MAX_FRAME_BYTES, "a frame is whole words and bounded");
      result.frames.emplace_back(frame.asChars().begin(), frame.size());
    } else {
      expect(rest.size() == 0, "a reader that needs more has taken all");
      result.midFrame = reader.midFrame();
      return true;
    }
  }
}

// Pieces of the given sizes, then the rest at once.
Reading read(Bytes stream, Bytes sizes) {
  Reading result;
  FrameReader reader;
  for (size_t size : sizes) {
    auto piece = stream.slice(0, std::min(size, stream.size()));
    stream = stream.slice(piece.size(), stream.size());
    if (!give(reader, piece, result)) return result;
  }
  give(reader, stream, result);
  return result;
}

Reading readInBytes(Bytes stream) {
  Reading result;
  FrameReader reader;
  for (auto& byte : stream) {
    if (!give(reader, kj::arrayPtr(&byte, 1), result)) return result;
  }
  result.midFrame = reader.midFrame();
  return result;
}

// Messages -----------------------------------------------------------------------------------------------------------

kj::Array<kj::byte> written(const Forward& message, Bytes content) {
  FrameBuilder builder;
  write(message, builder.init<schema::Forward>());
  return builder.toArray(content);
}
kj::Array<kj::byte> written(const Backward& message, Bytes) {
  FrameBuilder builder;
  write(message, builder.init<schema::Backward>());
  return builder.toArray();
}
kj::OneOf<Forward, FrameError> parse(FrameView& view, const Forward&) {
  return parseForward(view);
}
kj::OneOf<Backward, FrameError> parse(FrameView& view, const Backward&) {
  return parseBackward(view);
}

template <typename Message>
void judgeAgain(const Message& message, Bytes content) {
  auto first = written(message, content);
  Bytes rest = first;
  FrameReader reader;
  auto next = reader.next(rest);
  auto& view = *KJ_ASSERT_NONNULL(next).template get<FrameView*>();
  auto parsed = parse(view, message);
  expect(parsed.template is<Message>(), "what was taken is taken again");
  auto second = written(parsed.template get<Message>(), content);
  expect(second.asPtr() == first.asPtr(), "a message is read as it was written");
}

// The checks ---------------------------------------------------------------------------------------------------------

class Judge {
 public:
  Judge(ForwardCheck::Form form, bool tellsBases, uint8_t sent) : forward(form), tellsBases(tellsBases) {
    for (uint8_t i = 0; i < sent; ++i) backward.sentEntry(i % 2 == 0);
    if (sent % 3 == 0) backward.sentDone();
  }

  // False where the transfer ends.
  bool take(const Forward& message, Bytes content) {
    judgeAgain(message, content);
    auto before = forward.entriesSeen();
    if (forward.check(message, content.size()) != nullptr) return false;
    auto& totals = forward.announced();
    expect(forward.path().size() <= totals.deepest && totals.deepest <= MAX_DEPTH, "depth is bounded");
    expect(forward.entriesSeen() <= totals.files + totals.directories + ANNOUNCED_SLACK_ENTRIES, "entries are bounded");
    for (auto& name : forward.path()) expect(isComponent(name.asBytes()), "a path is components");
    KJ_IF_MAYBE (entry, message.tryGet<Entry>()) {
      expect(forward.entriesSeen() == before + 1, "an entry is counted");
      expect(isComponent(entry->name.asBytes()), "a name is a component");
      expect(forward.pathOf(entry->name).size() <= MAX_PATH_BYTES, "a path for people is bounded");
      if (tellsBases && entry->wantsBase) forward.toldBase(entry->size);
    }
    return true;
  }
  bool take(const Backward& message, Bytes content) {
    judgeAgain(message, content);
    if (backward.check(message) != nullptr) return false;
    expect(backward.isReady() || backward.isOver(), "ready or refused comes first");
    return true;
  }

  bool isOver() const { return forward.isDone() || backward.isOver(); }

 private:
  ForwardCheck forward;
  BackwardCheck backward;
  bool tellsBases;
};

bool takeFrame(Judge& judge, FrameView& view, unsigned kind) {
  auto content = view.content();
  switch (kind) {
    case 0: {
      auto parsed = parseForward(view);
      return parsed.is<Forward>() && judge.take(parsed.get<Forward>(), content);
    }
    case 1: {
      auto parsed = parseBackward(view);
      return parsed.is<Backward>() && judge.take(parsed.get<Backward>(), content);
    }
    case 2: {
      auto parsed = parseToMover(view);
      if (!parsed.is<ToMover>()) return false;
      auto& message = parsed.get<ToMover>();
      if (message.is<Forward>()) return judge.take(message.get<Forward>(), content);
      return !message.is<Backward>() || judge.take(message.get<Backward>(), content);
    }
    default: {
      auto parsed = parseToOpener(view);
      if (!parsed.is<ToOpener>()) return false;
      auto& message = parsed.get<ToOpener>();
      if (message.is<Forward>()) return judge.take(message.get<Forward>(), content);
      return !message.is<Backward>() || judge.take(message.get<Backward>(), content);
    }
  }
}

void run(Input input) {
  uint8_t flags = input.u8();
  uint8_t sent = input.u8();
  auto sizes = input.take(input.u8());
  auto stream = input.takeAll();

  auto whole = read(stream, nullptr);
  expect(read(stream, sizes) == whole, "the frames do not depend on the pieces");
  if (stream.size() <= 4096) expect(readInBytes(stream) == whole, "the frames do not depend on the pieces");

  Judge judge(ForwardCheck::Form(flags / 4 % 3), flags / 16 % 2 == 1, sent);
  FrameReader reader;
  for (auto& frame : whole.frames) {
    auto copy = copyOf(kj::arrayPtr(frame.data(), frame.size()).asBytes());
    Bytes rest = copy;
    auto next = reader.next(rest);
    bool wasOver = judge.isOver();
    if (!takeFrame(judge, *KJ_ASSERT_NONNULL(next).get<FrameView*>(), flags % 4)) return;
    expect(!wasOver || flags % 4 > 1, "nothing follows the end");
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
