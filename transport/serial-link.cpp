#include "transport/serial-link.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "protocol/limits.h"

namespace postern {

namespace {

// While not authenticated: room for a SYNC and the longest handshake frames that an honest peer sends at a time.
constexpr size_t PRE_AUTH_READ_BYTES = 512;

}  // namespace

// The session's view of the link while it is UP. Cut off (`link` null) as soon as it is not.
class SerialLink::Connection final : public FrameLink {
 public:
  Connection(SerialLink& link, const HelloPair& pair) : link(link), pair(pair), tag(linkTag(pair)) {}
  ~Connection() noexcept(false) override { close(); }

  const HelloPair& hellos() const override { return pair; }

  void authenticated() override {
    KJ_IF_MAYBE (l, link) l->reader.setMaxBody(MAX_FRAME_BODY_BYTES);
    readBound = limits::READ_BYTES;
  }

  kj::OneOf<Frame, NoFrame, LinkEnd> readFrame() override {
    KJ_IF_MAYBE (l, link) return l->readFrame(*this);
    return end;
  }

  void park() override {
    KJ_IF_MAYBE (l, link) l->reader.park();
  }

  kj::Promise<void> whenReadable() override {
    KJ_IF_MAYBE (l, link) return l->whenReadable();
    return kj::READY_NOW;
  }

  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    KJ_IF_MAYBE (l, link) return l->writer.write(pieces);
    return {PipeState::ENDED, 0};
  }

  kj::Promise<void> whenWritable() override {
    KJ_IF_MAYBE (l, link) return l->writer.whenWritable();
    return kj::READY_NOW;
  }

  void close() override {
    KJ_IF_MAYBE (l, link) {
      l->reader.discard();
      l->endSession(LinkEnd::CLOSED);
    }
  }

  void cutOff(LinkEnd why) {
    link = nullptr;
    end = why;
  }

  kj::Maybe<SerialLink&> link;
  const HelloPair pair;
  const LinkTag tag;
  size_t readBound = PRE_AUTH_READ_BYTES;
  LinkEnd end = LinkEnd::CLOSED;  // counts when `link` is null
};

SerialLink::SerialLink(BytePipe& pipe, const Hello& offer, Random& random, kj::Timer& timer, ReadScratch& scratch)
    : pipe(pipe),
      random(random),
      timer(timer),
      scratch(scratch),
      offered(offer),
      writer(pipe, [this](kj::ArrayPtr<kj::byte> out) { encodeSync(out); }),
      retryAt(timer.now()) {
  beginEpoch();
}

SerialLink::~SerialLink() noexcept(false) {
  KJ_IF_MAYBE (connection, live) connection->cutOff(LinkEnd::ENDED);
}

void SerialLink::offer(const Hello& hello) {
  offered = hello;
  if (live != nullptr) return;
  bool peerMayKnow = writer.hasBegunSync();
  beginEpoch();
  if (peerMayKnow) writer.flush();
}

// Epochs and SYNCs ----------------------------------------------------------------------------------------------------

void SerialLink::beginEpoch() {
  own = offered;
  own.transport = TransportKind::SERIAL;
  random.fill(kj::arrayPtr(own.nonce.data(), own.nonce.size()));
  writer.abandon();
  writer.owe();
}

void SerialLink::encodeSync(kj::ArrayPtr<kj::byte> out) {
  Hello hello = own;
  hello.echo = Epoch{};
  KJ_IF_MAYBE (p, peer) hello.echo = p->epoch();
  hello.replyWanted = live == nullptr;

  memcpy(out.begin(), SYNC_WORD.data(), SYNC_WORD.size());
  auto frame = out.slice(SYNC_WORD.size(), out.size());
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
  writeHello(hello, frame.slice(FRAME_HEADER_BYTES, frame.size()));
}

SerialLink::Heard SerialLink::hear(const SerialReader::Sync& sync) {
  auto untrustedHeader = sync.untrustedFrame.slice(0, FRAME_HEADER_BYTES);
  auto untrustedHello = sync.untrustedFrame.slice(FRAME_HEADER_BYTES, sync.untrustedFrame.size());
  KJ_IF_MAYBE (header, parseFrameHeader(untrustedHeader)) {
    if (header->kind != FrameKind::HELLO || header->bodyLength != HELLO_BYTES || header->tag != LinkTag{}) {
      return Heard::NOTHING_VALID;
    }
  } else {
    return Heard::NOTHING_VALID;
  }
  auto parsed = parseHello(untrustedHello, own);
  KJ_IF_MAYBE (error, parsed.tryGet<HelloError>()) {
    refusal = *error;
    return Heard::NOTHING_VALID;
  }
  refusal = nullptr;

  // An epoch's HELLO does not change but in echo, reply and checksum; one that does is another epoch.
  bool isNew = peer == nullptr || memcmp(peerBytes.data(), untrustedHello.begin(), HELLO_PROLOGUE_BYTES) != 0;
  auto& hello = parsed.get<Hello>();
  peer = hello;
  memcpy(peerBytes.data(), untrustedHello.begin(), HELLO_BYTES);
  if (hello.replyWanted) writer.owe();
  return isNew ? Heard::NEW_EPOCH : Heard::SAME_EPOCH;
}

// T31
bool SerialLink::peerEchoesUs() const {
  KJ_IF_MAYBE (p, peer) return p->echo == own.epoch();
  return false;
}

PipeState SerialLink::fill(size_t atMost) {
  auto buffer = scratch.buffer().slice(0, atMost);
  auto result = pipe.read(buffer);
  moreMayBeThere = result.state == PipeState::OPEN && result.bytes > 0;
  if (moreMayBeThere) {
    reader.begin(buffer.slice(0, result.bytes));
    readThisTurn += result.bytes;
  }
  return result.state;
}

// The device says that nobody has the other end open. What it held in both directions may be gone, so a SYNC that is
// half written starts again.
void SerialLink::lostPeer() {
  if (!connected) return;
  connected = false;
  writer.abandon();
  writer.owe();
}

// Not UP --------------------------------------------------------------------------------------------------------------

void SerialLink::restartRetries() {
  retryAfter = limits::SYNC_RETRY_FIRST;
  retryAt = timer.now() + retryAfter;
}

kj::Promise<SerialLink::Accepted> SerialLink::accept() {
  KJ_REQUIRE(live == nullptr, "the last connection is still alive");
  if (!writer.hasBegunSync()) writer.owe();
  restartRetries();
  return listen();
}

kj::Promise<SerialLink::Accepted> SerialLink::listen() {
  readThisTurn = 0;
  for (;;) {
    auto item = reader.next();
    KJ_IF_MAYBE (sync, item.tryGet<SerialReader::Sync>()) {
      auto heard = hear(*sync);
      if (heard == Heard::NEW_EPOCH) restartRetries();
      if (heard != Heard::NOTHING_VALID && peerEchoesUs()) return Accepted(connect());
      continue;
    }
    if (readThisTurn >= limits::READ_BYTES) break;
    auto state = fill(PRE_AUTH_READ_BYTES);
    if (state == PipeState::ENDED) return Accepted(LinkEnd::ENDED);
    if (state == PipeState::NOT_CONNECTED) lostPeer();
    if (state == PipeState::OPEN && !connected) {
      connected = true;
      restartRetries();
    }
    if (!moreMayBeThere) break;
  }
  return listenLater();
}

kj::Promise<SerialLink::Accepted> SerialLink::listenLater() {
  if (timer.now() >= retryAt) {
    writer.owe();
    retryAfter = std::min(retryAfter * 2, limits::SYNC_RETRY_MAX);
    retryAt = timer.now() + retryAfter;
  }
  writer.flush();
  if (writer.hasEnded()) return Accepted(LinkEnd::ENDED);
  // Others have their turn between two portions of a flood.
  if (moreMayBeThere) return kj::evalLater([this]() { return listen(); });
  return pipe.whenReadable().exclusiveJoin(timer.atTime(retryAt)).then([this]() { return listen(); });
}

kj::Own<FrameLink> SerialLink::connect() {
  auto pair = pairHellos(own, KJ_ASSERT_NONNULL(peer), kj::arrayPtr(peerBytes.data(), peerBytes.size()));
  auto connection = kj::heap<Connection>(*this, pair);
  live = *connection;
  // T21
  reader.expectFrames(limits::MAX_HANDSHAKE_BODY_BYTES);
  reader.park();
  writer.flush();
  return connection;
}

// UP ------------------------------------------------------------------------------------------------------------------

kj::OneOf<Frame, NoFrame, LinkEnd> SerialLink::readFrame(Connection& connection) {
  for (;;) {
    auto item = reader.next();
    KJ_IF_MAYBE (frame, item.tryGet<SerialReader::RawFrame>()) {
      if (frame->header.kind == FrameKind::HELLO) return endSession(LinkEnd::BAD_FRAME);
      // T31
      if (frame->header.tag == connection.tag) return Frame{frame->header.kind, frame->body};
      continue;
    }
    KJ_IF_MAYBE (sync, item.tryGet<SerialReader::Sync>()) {
      auto heard = hear(*sync);
      if (heard == Heard::NEW_EPOCH) return endSession(LinkEnd::PEER_RESTARTED);
      if (heard == Heard::NOTHING_VALID) return endSession(LinkEnd::BAD_FRAME);
      continue;
    }
    if (item.is<SerialReader::BadFrame>()) return endSession(LinkEnd::BAD_FRAME);

    // All is used up.
    auto state = PipeState::OPEN;
    if (readThisTurn < limits::READ_BYTES) {
      state = fill(connection.readBound);
      if (moreMayBeThere) continue;
    }
    readThisTurn = 0;
    if (state == PipeState::ENDED) return endSession(LinkEnd::ENDED);
    if (state == PipeState::NOT_CONNECTED) {
      lostPeer();
      return endSession(LinkEnd::PEER_RESTARTED);
    }
    writer.flush();
    return NoFrame();
  }
}

kj::Promise<void> SerialLink::whenReadable() {
  if (moreMayBeThere || !reader.isUsedUp()) return kj::evalLater([]() {});
  return pipe.whenReadable();
}

// T32
LinkEnd SerialLink::endSession(LinkEnd why) {
  KJ_ASSERT_NONNULL(live).cutOff(why);
  live = nullptr;
  beginEpoch();
  // What has been read already may hold the peer's SYNC. It cannot bring the link UP: nobody knows the new epoch yet.
  reader.hunt();
  for (;;) {
    auto item = reader.next();
    KJ_IF_MAYBE (sync, item.tryGet<SerialReader::Sync>()) {
      hear(*sync);
    } else {
      break;
    }
  }
  writer.flush();
  return why;
}

}  // namespace postern
