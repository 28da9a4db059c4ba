#include "transport/relay/relay.h"

#include <kj/debug.h>

namespace postern {

struct Relay::State {
  kj::Own<BulkChannel> channel;
  kj::Own<RelayEnd> end;
  kj::Maybe<RelayMeter&> meter;
  bool started = false;
  bool outFinished = false;
  bool inFinished = false;
  // Of the piece of each way that was admitted and has not yet passed.
  size_t admitted[2] = {0, 0};
  kj::Maybe<BulkChunk> chunk;  // of the way in

  State(kj::Own<BulkChannel> channel, kj::Own<RelayEnd> end, kj::Maybe<RelayMeter&> meter)
      : channel(kj::mv(channel)), end(kj::mv(end)), meter(meter) {}
  ~State() noexcept(false) { dropAdmitted(); }

  kj::Promise<RelayOutcome> run();

 private:
  kj::Promise<RelayOutcome> sendNext();
  kj::Promise<RelayOutcome> readEnd();
  kj::Promise<RelayOutcome> sendPiece(BulkBlock block, size_t size);
  kj::Promise<RelayOutcome> sendDelayed(kj::Promise<void> admission, kj::ArrayPtr<const kj::byte> piece);
  kj::Promise<RelayOutcome> endRead();
  kj::Promise<RelayOutcome> watchBehindFinish();

  kj::Promise<RelayOutcome> receiveNext();
  kj::Promise<RelayOutcome> deliver(BulkChunk received);
  kj::Promise<RelayOutcome> writeEnd(size_t done);
  kj::Promise<RelayOutcome> channelRead(BulkEnd why);

  kj::Maybe<kj::Promise<void>> admit(RelayWay way, size_t bytes);
  void passed(RelayWay way, kj::ArrayPtr<const kj::byte> bytes);
  void dropAdmitted();
  void settle(RelayOutcome outcome);
};

namespace {

RelayOutcome outcomeOf(BulkEnd why) {
  return why == BulkEnd::SESSION_ENDED ? RelayOutcome::SESSION_ENDED : RelayOutcome::RESET;
}

}  // namespace

kj::Promise<RelayOutcome> Relay::State::run() {
  KJ_REQUIRE(!started, "a relay runs once");
  started = true;
  // Whatever comes first cancels the others. A way that has finished waits for the other one.
  return sendNext()
      .exclusiveJoin(receiveNext())
      .exclusiveJoin(channel->whenBroken().then([](BulkEnd why) { return outcomeOf(why); }))
      .exclusiveJoin(end->whenReset().then([] { return RelayOutcome::RESET; }))
      .then([this](RelayOutcome outcome) {
        settle(outcome);
        return outcome;
      });
}

void Relay::State::settle(RelayOutcome outcome) {
  dropAdmitted();
  chunk = nullptr;
  if (outcome == RelayOutcome::FINISHED) return;
  channel->reset();
  end->reset();
}

// Out: from the end into the link ------------------------------------------------------------------------------------

// Credit first, then something to read, and only then a block: what waits holds none.
// T94
kj::Promise<RelayOutcome> Relay::State::sendNext() {
  return channel->whenSendable().then([this](bool canSend) -> kj::Promise<RelayOutcome> {
    if (!canSend) return kj::NEVER_DONE;  // whenBroken() says why
    return end->whenReadable().then([this] { return readEnd(); });
  });
}

kj::Promise<RelayOutcome> Relay::State::readEnd() {
  size_t room = channel->sendable();
  if (room == 0) return sendNext();
  auto block = channel->newBlock();
  auto result = end->read(block.space().slice(0, room));
  if (result.state == RelayEnd::State::RESET) return RelayOutcome::RESET;
  if (result.state == RelayEnd::State::FINISHED) return endRead();
  if (result.bytes > 0) return sendPiece(kj::mv(block), result.bytes);
  return end->whenReadable().then([this] { return readEnd(); });
}

// What was read fits the credit that there was, and nobody else uses it.
kj::Promise<RelayOutcome> Relay::State::sendPiece(BulkBlock block, size_t size) {
  auto bytes = block.space().slice(0, size);
  KJ_IF_MAYBE (admission, admit(RelayWay::OUT, size)) return sendDelayed(kj::mv(*admission), bytes);
  passed(RelayWay::OUT, bytes);
  channel->send(kj::mv(block), size);
  return kj::evalLater([this] { return sendNext(); });
}

// A piece that waits keeps its own bytes and no block.
kj::Promise<RelayOutcome> Relay::State::sendDelayed(kj::Promise<void> admission, kj::ArrayPtr<const kj::byte> piece) {
  auto held = kj::heapArray(piece);
  return admission.then([this, bytes = held.asPtr()]() { return channel->write(bytes); })
      .then([this, held = kj::mv(held)](bool sent) -> kj::Promise<RelayOutcome> {
        if (!sent) return kj::NEVER_DONE;
        passed(RelayWay::OUT, held);
        return kj::evalLater([this] { return sendNext(); });
      });
}

kj::Promise<RelayOutcome> Relay::State::endRead() {
  channel->finish();
  outFinished = true;
  if (inFinished) return RelayOutcome::FINISHED;
  return watchBehindFinish();
}

kj::Promise<RelayOutcome> Relay::State::watchBehindFinish() {
  return end->whenReadable().then([this]() -> kj::Promise<RelayOutcome> {
    kj::byte nothing;
    if (end->read(kj::arrayPtr(&nothing, 1)).state != RelayEnd::State::FINISHED) return RelayOutcome::RESET;
    return watchBehindFinish();
  });
}

// In: out of the link to the end -------------------------------------------------------------------------------------

kj::Promise<RelayOutcome> Relay::State::receiveNext() {
  return channel->read().then([this](kj::OneOf<BulkChunk, BulkEnd> received) -> kj::Promise<RelayOutcome> {
    KJ_IF_MAYBE (why, received.tryGet<BulkEnd>()) return channelRead(*why);
    return deliver(kj::mv(received.get<BulkChunk>()));
  });
}

kj::Promise<RelayOutcome> Relay::State::deliver(BulkChunk received) {
  size_t size = received.bytes().size();
  if (size == 0) return kj::evalLater([this] { return receiveNext(); });
  chunk = kj::mv(received);
  KJ_IF_MAYBE (admission, admit(RelayWay::IN, size)) return admission->then([this] { return writeEnd(0); });
  return writeEnd(0);
}

kj::Promise<RelayOutcome> Relay::State::writeEnd(size_t done) {
  auto bytes = KJ_ASSERT_NONNULL(chunk).bytes();
  while (done < bytes.size()) {
    auto result = end->write(bytes.slice(done, bytes.size()));
    if (result.state != RelayEnd::State::OPEN) return RelayOutcome::RESET;
    if (result.bytes == 0) return end->whenWritable().then([this, done] { return writeEnd(done); });
    done += result.bytes;
  }
  passed(RelayWay::IN, bytes);
  chunk = nullptr;
  return kj::evalLater([this] { return receiveNext(); });
}

kj::Promise<RelayOutcome> Relay::State::channelRead(BulkEnd why) {
  if (why != BulkEnd::FINISHED) return outcomeOf(why);
  end->finish();
  return end->whenWritable().then([this]() -> kj::Promise<RelayOutcome> {
    inFinished = true;
    if (outFinished) return RelayOutcome::FINISHED;
    return kj::NEVER_DONE;
  });
}

// The meter ----------------------------------------------------------------------------------------------------------

kj::Maybe<kj::Promise<void>> Relay::State::admit(RelayWay way, size_t bytes) {
  KJ_IF_MAYBE (one, meter) {
    admitted[size_t(way)] = bytes;
    return one->admit(way, bytes);
  }
  return nullptr;
}

void Relay::State::passed(RelayWay way, kj::ArrayPtr<const kj::byte> bytes) {
  KJ_IF_MAYBE (one, meter) {
    admitted[size_t(way)] = 0;
    one->passed(way, bytes);
  }
}

void Relay::State::dropAdmitted() {
  KJ_IF_MAYBE (one, meter) {
    for (auto way : {RelayWay::OUT, RelayWay::IN}) {
      size_t bytes = admitted[size_t(way)];
      admitted[size_t(way)] = 0;
      if (bytes > 0) one->dropped(way, bytes);
    }
  }
}

Relay::Relay(kj::Own<BulkChannel> channel, kj::Own<RelayEnd> end, kj::Maybe<RelayMeter&> meter)
    : state(kj::heap<State>(kj::mv(channel), kj::mv(end), meter)) {}
Relay::~Relay() noexcept(false) {}

kj::Promise<RelayOutcome> Relay::run() {
  return state->run();
}

}  // namespace postern
