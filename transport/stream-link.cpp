#include "transport/stream-link.h"

#include <kj/debug.h>

#include "protocol/frame-reader.h"
#include "protocol/limits.h"

namespace postern {

namespace {

// Room for HELLO and the longest handshake frames that an honest peer sends without waiting for an answer.
constexpr size_t PRE_AUTH_READ_BYTES = 512;

using HelloResult = kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>;

class StreamLink final : public FrameLink {
 public:
  StreamLink(kj::Own<BytePipe> pipe, const Hello& own, ReadScratch& scratch)
      : pipe(kj::mv(pipe)), scratch(scratch), pair{own.role, own, {}, {}, {}} {}

  kj::Promise<kj::Maybe<kj::OneOf<HelloError, LinkEnd>>> exchangeHello() {
    auto frame = kj::heapArray<kj::byte>(HELLO_FRAME_BYTES);
    writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
    writeHello(pair.own, frame.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES));
    return sendHello(kj::mv(frame), 0);
  }

  const HelloPair& hellos() const override { return pair; }
  void authenticated() override { isAuthenticated = true; }
  kj::OneOf<Frame, NoFrame, LinkEnd> readFrame() override;
  void park() override;
  kj::Promise<void> whenReadable() override;
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  kj::Promise<void> whenWritable() override { return pipe->whenWritable(); }
  void close() override;

 private:
  kj::Own<BytePipe> pipe;
  ReadScratch& scratch;
  HelloPair pair;
  LinkTag tag{};
  bool helloDone = false;
  bool isAuthenticated = false;
  bool moreMayBeThere = false;  // the last read filled something: the pipe has not said yet that it is empty
  bool hasReadThisTurn = false;
  kj::Maybe<LinkEnd> ended;
  FrameReader reader;
  kj::ArrayPtr<kj::byte> unread;  // in the scratch, or in `parked`
  kj::Array<kj::byte> parked;

  kj::Promise<kj::Maybe<kj::OneOf<HelloError, LinkEnd>>> sendHello(kj::Array<kj::byte> frame, size_t sent);
  kj::Promise<kj::Maybe<kj::OneOf<HelloError, LinkEnd>>> receiveHello();
  kj::OneOf<FrameReader::RawFrame, NoFrame, LinkEnd> readRawFrame();
  LinkEnd end(LinkEnd why);
  size_t readBound() const { return isAuthenticated ? limits::READ_BYTES : PRE_AUTH_READ_BYTES; }
  // T21
  size_t bodyBound() const { return isAuthenticated ? MAX_FRAME_BODY_BYTES : limits::MAX_HANDSHAKE_BODY_BYTES; }
};

LinkEnd StreamLink::end(LinkEnd why) {
  KJ_IF_MAYBE (earlier, ended) return *earlier;
  ended = why;
  unread = nullptr;
  parked = nullptr;
  reader.reset();
  pipe->close();
  return why;
}

kj::Promise<kj::Maybe<kj::OneOf<HelloError, LinkEnd>>> StreamLink::sendHello(kj::Array<kj::byte> frame, size_t sent) {
  while (sent < frame.size()) {
    kj::ArrayPtr<const kj::byte> rest = frame.slice(sent, frame.size());
    auto result = pipe->write(kj::arrayPtr(&rest, 1));
    if (result.state == PipeState::ENDED) {
      return kj::Maybe<kj::OneOf<HelloError, LinkEnd>>(end(LinkEnd::ENDED));
    }
    sent += result.bytes;
    if (result.bytes == 0) {
      return pipe->whenWritable().then(
          [this, frame = kj::mv(frame), sent]() mutable { return sendHello(kj::mv(frame), sent); });
    }
  }
  return receiveHello();
}

kj::Promise<kj::Maybe<kj::OneOf<HelloError, LinkEnd>>> StreamLink::receiveHello() {
  using Failure = kj::Maybe<kj::OneOf<HelloError, LinkEnd>>;
  auto result = readRawFrame();
  if (result.is<LinkEnd>()) return Failure(result.get<LinkEnd>());
  if (result.is<NoFrame>()) {
    return whenReadable().then([this]() { return receiveHello(); });
  }
  auto& frame = result.get<FrameReader::RawFrame>();
  if (frame.header.kind != FrameKind::HELLO || frame.header.tag != LinkTag{}) return Failure(end(LinkEnd::BAD_FRAME));

  auto parsed = parseHello(frame.body, pair.own);
  if (parsed.is<HelloError>()) {
    end(LinkEnd::CLOSED);
    return Failure(parsed.get<HelloError>());
  }
  auto& hello = parsed.get<Hello>();
  // Echo and reply are the serial link's; on a stream an honest peer leaves them alone.
  if (hello.replyWanted || hello.echo != Epoch{}) {
    end(LinkEnd::CLOSED);
    return Failure(HelloError::BAD_FIELD);
  }
  pair = pairHellos(pair.own, hello, frame.body);
  tag = linkTag(pair);
  helloDone = true;
  park();
  return Failure(nullptr);
}

kj::OneOf<FrameReader::RawFrame, NoFrame, LinkEnd> StreamLink::readRawFrame() {
  KJ_IF_MAYBE (why, ended) return *why;
  if (unread.size() == 0) {
    parked = nullptr;
    // A read that ended with a frame's end is the turn's only one, too.
    if (hasReadThisTurn) {
      hasReadThisTurn = false;
      return NoFrame();
    }
    auto buffer = scratch.buffer().slice(0, readBound());
    auto result = pipe->read(buffer);
    if (result.state == PipeState::ENDED) return end(LinkEnd::ENDED);
    moreMayBeThere = result.state == PipeState::OPEN && result.bytes > 0;
    if (!moreMayBeThere) return NoFrame();
    unread = buffer.slice(0, result.bytes);
    hasReadThisTurn = true;
  }
  auto result = reader.next(unread, bodyBound());
  if (result.is<FrameReader::NeedMore>()) {
    hasReadThisTurn = false;
    return NoFrame();
  }
  if (!result.is<FrameReader::RawFrame>()) return end(LinkEnd::BAD_FRAME);
  return result.get<FrameReader::RawFrame>();
}

kj::OneOf<Frame, NoFrame, LinkEnd> StreamLink::readFrame() {
  KJ_IREQUIRE(helloDone);
  auto result = readRawFrame();
  if (result.is<LinkEnd>()) return result.get<LinkEnd>();
  if (result.is<NoFrame>()) return NoFrame();
  auto& frame = result.get<FrameReader::RawFrame>();
  if (frame.header.kind == FrameKind::HELLO || frame.header.tag != tag) return end(LinkEnd::BAD_FRAME);
  return Frame{frame.header.kind, frame.body};
}

void StreamLink::park() {
  if (unread.size() == 0 || parked.size() > 0) return;
  parked = kj::heapArray<kj::byte>(unread);
  unread = parked;
}

kj::Promise<void> StreamLink::whenReadable() {
  // One read a turn of the loop, so that one link's full pipe does not keep the others waiting; evalLater() puts the
  // next behind all that is due.
  if (moreMayBeThere || unread.size() > 0) return kj::evalLater([]() {});
  return pipe->whenReadable();
}

PipeResult StreamLink::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (ended != nullptr) return {PipeState::ENDED, 0};
  return pipe->write(pieces);
}

void StreamLink::close() {
  end(LinkEnd::CLOSED);
}

}  // namespace

kj::Promise<HelloResult> openStreamLink(kj::Own<BytePipe> pipe, const Hello& own, ReadScratch& scratch) {
  auto link = kj::heap<StreamLink>(kj::mv(pipe), own, scratch);
  auto& reference = *link;
  return reference.exchangeHello().then(
      [link = kj::mv(link)](kj::Maybe<kj::OneOf<HelloError, LinkEnd>> failure) mutable -> HelloResult {
        KJ_IF_MAYBE (why, failure) {
          if (why->is<HelloError>()) return why->get<HelloError>();
          return why->get<LinkEnd>();
        }
        return kj::Own<FrameLink>(kj::mv(link));
      });
}

}  // namespace postern
