#include "tests/fuzz/session-peer.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {

namespace {

constexpr size_t MAX_OPEN_CHANNELS = 16;
constexpr size_t MAX_KEPT_CHUNKS = 64;

Secret<32> keyFrom(Role role) {
  kj::byte bytes[32];
  memset(bytes, static_cast<int>(role), sizeof(bytes));
  return Secret<32>(kj::arrayPtr(bytes, sizeof(bytes)));
}

Role other(Role role) {
  return role == Role::HOST ? Role::GUEST : Role::HOST;
}

Hello helloFrom(Role role) {
  Hello hello;
  hello.role = role;
  hello.patterns = PATTERN_KKPSK0;
  hello.nonce.fill(static_cast<kj::byte>(role));
  return hello;
}

}  // namespace

SessionPeer::SessionPeer(Role self, Kind kind)
    : waitScope(loop),
      timer(kj::origin<kj::TimePoint>()),
      pool(timer),
      self(self),
      tag(linkTag(helloFrom(Role::HOST).nonce, helloFrom(Role::GUEST).nonce)),
      sealer(keyFrom(other(self)), tag),
      opener(OpeningKey{keyFrom(self)}),
      theSession(makeSession(kind)),
      enrolled(kind == Kind::ENROLLED) {
  settle();
}

SessionPeer::~SessionPeer() noexcept(false) {}

kj::Own<Session> SessionPeer::makeSession(Kind kind) {
  kj::byte hello[HELLO_FRAME_BYTES];
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, hello);
  writeHello(helloFrom(other(self)), kj::arrayPtr(hello + FRAME_HEADER_BYTES, HELLO_BYTES));
  incoming().inject(hello);
  auto pipe = self == Role::HOST ? wire.hostEnd() : wire.guestEnd();
  auto opened = openStreamLink(kj::mv(pipe), helloFrom(self), scratch).wait(waitScope);
  outgoing().drop();
  return kj::heap<Session>(self, kj::mv(opened.get<kj::Own<FrameLink>>()), RecordSealer({keyFrom(self)}, tag),
                           RecordOpener({keyFrom(other(self))}), kind == Kind::ENROLMENT,
                           SessionEnvironment{timer, pool, random});
}

// The peer --------------------------------------------------------------------------------------------------------

void SessionPeer::sendRecord(kj::ArrayPtr<const kj::byte> inner) {
  incoming().inject(sealer.seal(inner));
  // A peer that sends REKEY changes its key, or else nothing it sends behind it opens.
  auto copy = kj::heapArray<kj::byte>(inner);
  KJ_IF_MAYBE (record, parseRecord(copy)) {
    if (record->header.type == RecordType::REKEY) sealer.rekey();
  }
}

void SessionPeer::readAnswers() {
  auto chunk = outgoing().take();
  kj::ArrayPtr<kj::byte> rest = chunk;
  for (;;) {
    auto next = frames.next(rest, MAX_FRAME_BODY_BYTES);
    if (next.is<FrameReader::NeedMore>()) return;
    expect(next.is<FrameReader::RawFrame>(), "a session sends frames");
    judgeAnswer(next.get<FrameReader::RawFrame>());
  }
}

void SessionPeer::judgeAnswer(const FrameReader::RawFrame& frame) {
  expect(!closeSeen, "a session sends nothing behind CLOSE");
  expect(frame.header.kind == FrameKind::RECORD && frame.header.tag == tag, "a session sends records of its link");
  auto plain = kj::heapArray<kj::byte>(RecordOpener::innerBytes(frame.body.size()));
  auto opened = opener.open(frame.body, plain);
  expect(opened.is<Record>(), "what a session sends opens, in order");
  auto type = opened.get<Record>().header.type;
  onAnswer(plain);
  if (type == RecordType::REKEY) opener.rekey();
  closeSeen = type == RecordType::CLOSE;
}

// The owner -------------------------------------------------------------------------------------------------------

template <typename T, typename Then>
void SessionPeer::await(kj::Promise<T> promise, Then then) {
  ++waiting;
  owners.add(promise
                 .then([this, then = kj::mv(then)](T result) mutable {
                   --waiting;
                   then(kj::mv(result));
                 })
                 .eagerlyEvaluate([this](kj::Exception&&) { --waiting; }));
}

void SessionPeer::await(kj::Promise<void> promise) {
  await(promise.then([]() { return true; }), [](bool) {});
}

void SessionPeer::startRpc() {
  if (rpc != nullptr || !enrolled || session().isOver()) return;
  rpc = kj::heap<RpcConnection>(session(), self, kj::heap<test::EchoServer>(), [](kj::StringPtr) {});
}

void SessionPeer::call() {
  KJ_IF_MAYBE (connection, rpc) {
    auto request = (*connection)->peer().castAs<test::Echo>().pingRequest();
    request.setNumber(1);
    await(request.send().ignoreResult());
  }
}

void SessionPeer::ping() {
  if (!enrolled) return;
  await(session().ping(), [](kj::Duration) {});
}

void SessionPeer::close(CloseCode code) {
  await(session().close(code));
}

void SessionPeer::continueEnrolment() {
  if (enrolled || session().isOver()) return;
  if (!commitBegun) {
    commitBegun = true;
    auto committed = self == Role::GUEST ? session().commit() : session().whenCommit();
    await(committed.then([]() { return true; }), [this](bool) {
      if (session().isOver()) return;
      if (self == Role::HOST) session().confirmCommit();
      enrolled = true;
    });
  }
}

void SessionPeer::openChannel() {
  if (channels.size() >= MAX_OPEN_CHANNELS) return;
  KJ_IF_MAYBE (opened, session().bulk().open()) channels.push_back(kj::heap<Channel>(Channel{kj::mv(opened->channel)}));
}

void SessionPeer::acceptChannel(BulkOffer untrustedOffer) {
  if (channels.size() >= MAX_OPEN_CHANNELS) return;
  auto accepted = session().bulk().accept(untrustedOffer);
  if (accepted.is<kj::Own<BulkChannel>>()) {
    channels.push_back(kj::heap<Channel>(Channel{kj::mv(accepted.get<kj::Own<BulkChannel>>())}));
  } else {
    expect(describe(accepted.get<BulkError>()).size() > 0, "every error has a text");
  }
}

void SessionPeer::writeTo(size_t index, size_t bytes) {
  if (channels.empty()) return;
  auto& channel = *channels[index % channels.size()];
  size_t n = channel.writing ? 0 : std::min(bytes, channel.handle->sendable());
  if (n == 0) return;
  auto block = channel.handle->newBlock();
  memset(block.space().begin(), 1, n);
  channel.handle->send(kj::mv(block), n);
}

void SessionPeer::writeAllTo(size_t index, size_t bytes) {
  if (channels.empty()) return;
  auto& channel = *channels[index % channels.size()];
  if (channel.writing) return;
  channel.writing = true;
  static const kj::byte zeros[4 * 65536] = {};
  await(channel.handle->write(kj::arrayPtr(zeros, std::min(bytes, sizeof(zeros)))),
        [&channel](bool) { channel.writing = false; });
}

void SessionPeer::readFrom(size_t index, bool keepChunk) {
  if (channels.empty()) return;
  auto& channel = *channels[index % channels.size()];
  if (channel.reading) return;
  channel.reading = true;
  await(channel.handle->read(), [this, &channel, keepChunk](kj::OneOf<BulkChunk, BulkEnd> result) {
    channel.reading = false;
    if (keepChunk && result.is<BulkChunk>() && kept.size() < MAX_KEPT_CHUNKS) {
      kept.push_back(kj::mv(result.get<BulkChunk>()));
    }
  });
}

void SessionPeer::finish(size_t index) {
  if (!channels.empty()) channels[index % channels.size()]->handle->finish();
}

void SessionPeer::reset(size_t index) {
  if (!channels.empty()) channels[index % channels.size()]->handle->reset();
}

void SessionPeer::dropChannel(size_t index) {
  if (!kept.empty()) kept.pop_front();
  if (channels.empty()) return;
  auto& channel = channels[index % channels.size()];
  if (channel->reading || channel->writing) return;  // its owner waits for it
  std::swap(channel, channels.back());
  channels.pop_back();
}

void SessionPeer::advance(kj::Duration by) {
  timer.advanceTo(timer.now() + by);
  settle();
}

void SessionPeer::judgeEnd() {
  endStream();
  settle();
  expect(session().isOver(), "a session is over when its stream has ended");
  // close() may wait for a pipe that takes nothing.
  advance(limits::CLOSE_LINGER);
  expect(waiting == 0, "when a session is over, nobody waits for it any more");
  setCapacity(kj::maxValue);
  readAnswers();
  owners.clear();
  rpc = nullptr;
  kept.clear();
  channels.clear();
  theSession = nullptr;
  expect(pool.blocksOut() == 0, "no block is left");
}

}  // namespace postern::fuzz
