#include "protocol/bulk-channel.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "protocol/bulk-channel-state.h"
#include "protocol/limits.h"
#include "protocol/wire-int.h"

namespace postern {

static_assert(MAX_BULK_DATA_BYTES + limits::BULK_RECORD_COST == limits::BULK_WINDOW_FIRST);
static_assert(RECORD_HEADROOM + MAX_BULK_DATA_BYTES + TAG_BYTES <= BlockPool::BLOCK_BYTES);

namespace {

// Records of one channel that wait for the writer. One is being sealed while the owner fills the next.
constexpr size_t MAX_QUEUED_RECORDS = 2;

uint32_t costOf(size_t bytes) {
  return static_cast<uint32_t>(bytes) + limits::BULK_RECORD_COST;
}

}  // namespace

// Handle and chunk -----------------------------------------------------------------------------------------------

BulkChunk::BulkChunk(kj::Own<_::ChannelState> channel, kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> bytes)
    : channel(kj::mv(channel)), storage(kj::mv(storage)), data(bytes) {}

BulkChunk::BulkChunk(BulkChunk&&) noexcept = default;

BulkChunk& BulkChunk::operator=(BulkChunk&& other) {
  // The chunk that is overwritten gives its credit back when `other`, now its owner, is destroyed.
  std::swap(channel, other.channel);
  std::swap(storage, other.storage);
  std::swap(data, other.data);
  return *this;
}

BulkChunk::~BulkChunk() noexcept(false) {
  if (channel.get() == nullptr) return;
  storage = nullptr;  // the buffer goes back before the peer may send more
  channel->chunkDropped(data.size());
}

BulkChannel::BulkChannel(kj::Own<_::ChannelState> state) : state(kj::mv(state)) {}
BulkChannel::~BulkChannel() noexcept(false) {
  state->handleDropped();
}

uint32_t BulkChannel::number() const {
  return state->number;
}
size_t BulkChannel::sendable() const {
  return state->sendable();
}
kj::Promise<bool> BulkChannel::whenSendable() {
  return state->whenSendable();
}
BulkBlock BulkChannel::newBlock() {
  return state->newBlock();
}
void BulkChannel::send(BulkBlock block, size_t size) {
  state->send(kj::mv(block), size);
}
void BulkChannel::finish() {
  state->finish();
}
void BulkChannel::reset() {
  state->reset();
}
kj::Promise<BulkEnd> BulkChannel::whenBroken() {
  return state->whenBroken();
}
kj::Promise<kj::OneOf<BulkChunk, BulkEnd>> BulkChannel::read() {
  return state->read();
}

kj::Promise<bool> BulkChannel::write(kj::ArrayPtr<const kj::byte> bytes) {
  return state->write(bytes);
}

// State: sending -------------------------------------------------------------------------------------------------

namespace _ {

ChannelState::ChannelState(BulkMux& mux, uint32_t number, uint32_t window, GrantBy grantBy, uint32_t sendCredit)
    : number(number),
      mux(&mux),
      sendCredit(sendCredit),
      window(window),
      reserved(window),
      turnoverBegan(mux.timer.now()) {
  if (grantBy == GrantBy::OFFER) {
    peerCredit = window;
  } else {
    owedCredit = window;
    mux.makeCreditReady(*this);
  }
}

ChannelState::~ChannelState() noexcept(false) {
  leave();
}

size_t ChannelState::sendable() const {
  if (mux == nullptr || sendEnded || sendQueue.size() >= MAX_QUEUED_RECORDS) return 0;
  if (sendCredit <= limits::BULK_RECORD_COST) return 0;
  return std::min<size_t>(sendCredit - limits::BULK_RECORD_COST, MAX_BULK_DATA_BYTES);
}

kj::Promise<bool> ChannelState::whenSendable() {
  if (sendable() > 0) return true;
  if (mux == nullptr || sendEnded) return false;
  KJ_IF_MAYBE (earlier, sendWaiter) {
    KJ_REQUIRE(!(*earlier)->isWaiting(), "one sender at a time");
  }
  auto paf = kj::newPromiseAndFulfiller<bool>();
  sendWaiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

BulkBlock ChannelState::newBlock() {
  if (mux == nullptr) return {kj::heapArray<kj::byte>(BlockPool::BLOCK_BYTES)};
  return {mux->pool.take()};
}

void ChannelState::send(BulkBlock block, size_t size) {
  KJ_REQUIRE(size > 0 && size <= sendable(), "more than may be sent", size);
  sendCredit -= costOf(size);
  size_t needed = RECORD_HEADROOM + size + TAG_BYTES;
  if (needed <= BlockPool::SMALL_BYTES) {
    // A short record does not keep a whole block while it waits.
    auto smaller = mux->pool.take(needed);
    memcpy(smaller.begin() + RECORD_HEADROOM, block.storage.begin() + RECORD_HEADROOM, size);
    block.storage = kj::mv(smaller);
  }
  sendQueue.push_back({{RecordType::BULK, 0, 0, number}, kj::mv(block.storage), size});
  mux->makeReady(*this);
}

kj::Promise<bool> ChannelState::write(kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    size_t n = std::min(sendable(), bytes.size());
    if (n == 0) {
      return whenSendable().then([self = kj::addRef(*this), bytes](bool canSend) mutable -> kj::Promise<bool> {
        if (!canSend) return false;
        return self->write(bytes);
      });
    }
    auto block = newBlock();
    memcpy(block.space().begin(), bytes.begin(), n);
    send(kj::mv(block), n);
    bytes = bytes.slice(n, bytes.size());
  }
  return true;
}

void ChannelState::finish() {
  if (mux == nullptr || sendEnded) return;
  sendQueue.push_back(smallRecord({RecordType::BULK, BULK_FINISHED, 0, number}, nullptr));
  endSending();
  mux->makeReady(*this);
}

void ChannelState::endSending() {
  sendEnded = true;
  wakeSender(false);
}

void ChannelState::wakeSender(bool canSend) {
  KJ_IF_MAYBE (waiter, sendWaiter) {
    auto own = kj::mv(*waiter);
    sendWaiter = nullptr;
    own->fulfill(kj::mv(canSend));
  }
}

OutgoingRecord ChannelState::takeRecord() {
  auto record = kj::mv(sendQueue.front());
  sendQueue.pop_front();
  if (sendable() > 0) wakeSender(true);
  return record;
}

// State: receiving -----------------------------------------------------------------------------------------------

kj::Maybe<BulkError> ChannelState::receiveData(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data) {
  if (peerFinished) return BulkError::AFTER_FINISH;
  uint32_t cost = costOf(data.size());
  // T27
  if (cost > peerCredit) return BulkError::CREDIT_OVERRUN;
  peerCredit -= cost;
  if (wasReset || handleGone) return nullptr;  // in flight when we reset: nobody will read it, and no credit comes back
  held += cost;
  receiveQueue.push_back({kj::mv(storage), data});
  wakeReader();
  return nullptr;
}

kj::Maybe<BulkError> ChannelState::receiveCredit(uint32_t untrustedAmount) {
  if (untrustedAmount > limits::BULK_WINDOW_MAX - sendCredit) return BulkError::CREDIT_OVERFLOW;
  sendCredit += untrustedAmount;
  if (sendable() > 0) wakeSender(true);
  return nullptr;
}

kj::Maybe<BulkError> ChannelState::receiveFinished() {
  if (peerFinished) return BulkError::AFTER_FINISH;
  peerFinished = true;
  wakeReader();
  return nullptr;
}

void ChannelState::receiveReset() {
  wasReset = true;
  sendQueue.clear();
  endSending();
  wakeReader();
  broke(BulkEnd::RESET);
}

void ChannelState::wakeReader() {
  KJ_IF_MAYBE (waiter, readWaiter) {
    auto own = kj::mv(*waiter);
    readWaiter = nullptr;
    own->fulfill();
  }
}

kj::Promise<kj::OneOf<BulkChunk, BulkEnd>> ChannelState::read() {
  using Result = kj::OneOf<BulkChunk, BulkEnd>;
  if (!receiveQueue.empty()) {
    auto next = kj::mv(receiveQueue.front());
    receiveQueue.pop_front();
    return Result(BulkChunk(kj::addRef(*this), kj::mv(next.storage), next.data));
  }
  if (peerFinished) return Result(BulkEnd::FINISHED);
  if (wasReset || handleGone) return Result(BulkEnd::RESET);
  if (mux == nullptr) return Result(BulkEnd::SESSION_ENDED);
  KJ_IF_MAYBE (earlier, readWaiter) {
    KJ_REQUIRE(!(*earlier)->isWaiting(), "one reader at a time");
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  readWaiter = kj::mv(paf.fulfiller);
  return paf.promise.then([self = kj::addRef(*this)]() mutable { return self->read(); });
}

void ChannelState::chunkDropped(size_t bytes) {
  uint32_t cost = costOf(bytes);
  held -= cost;
  if (mux == nullptr || handleGone || wasReset || peerFinished) return;
  adaptWindow(cost);
  grant();
}

void ChannelState::adaptWindow(uint32_t cost) {
  auto now = mux->timer.now();
  bool idle = now - turnoverBegan > limits::BULK_WINDOW_IDLE;
  turnedOver += cost;
  if (idle || turnedOver >= window) {
    uint32_t wanted =
        idle ? std::min(window, limits::BULK_WINDOW_FIRST) : std::min(2 * window, limits::BULK_WINDOW_MAX);
    bool fits = mux->windowsGranted - reserved + wanted <= limits::BULK_WINDOWS_PER_LINK;
    if (wanted < window || fits) window = wanted;
    turnedOver = 0;
    turnoverBegan = now;
  }
  // A window that shrank counts as what the peer may still send under the old one, until it has.
  uint32_t needed = std::max(window, peerCredit + held + owedCredit);
  mux->windowsGranted = mux->windowsGranted - reserved + needed;
  reserved = needed;
}

void ChannelState::grant() {
  uint32_t used = peerCredit + held + owedCredit;
  // In halves of the window, so that a stream costs two credit records a window. A window that shrank grants nothing
  // for a while.
  if (used > window || window - used < window / 2) return;
  owedCredit += window - used;
  mux->makeCreditReady(*this);
}

uint32_t ChannelState::takeOwedCredit() {
  uint32_t amount = owedCredit;
  owedCredit = 0;
  peerCredit += amount;
  return amount;
}

// State: ending --------------------------------------------------------------------------------------------------

void ChannelState::reset() {
  if (mux == nullptr || wasReset || (sendEnded && sendQueue.empty() && peerFinished)) return;
  wasReset = true;
  receiveQueue.clear();
  sendQueue.clear();
  endSending();
  mux->sendReset(number);
  wakeReader();
  broke(BulkEnd::RESET);
}

kj::Promise<BulkEnd> ChannelState::whenBroken() {
  if (wasReset || handleGone) return BulkEnd::RESET;
  if (mux == nullptr) return BulkEnd::SESSION_ENDED;
  KJ_IF_MAYBE (earlier, breakWaiter) {
    KJ_REQUIRE(!(*earlier)->isWaiting(), "one waiter at a time");
  }
  auto paf = kj::newPromiseAndFulfiller<BulkEnd>();
  breakWaiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void ChannelState::broke(BulkEnd how) {
  KJ_IF_MAYBE (waiter, breakWaiter) {
    auto own = kj::mv(*waiter);
    breakWaiter = nullptr;
    own->fulfill(kj::mv(how));
  }
}

void ChannelState::handleDropped() {
  handleGone = true;
  receiveQueue.clear();
  wakeReader();
  broke(BulkEnd::RESET);
  if (mux == nullptr) return;
  if (wasReset) {
    leave();
  } else if (!sendEnded) {
    reset();
    leave();
  } else if (sendQueue.empty()) {
    if (!peerFinished) mux->sendReset(number);
    leave();
  } else {
    mux->linger(kj::addRef(*this));
  }
}

void ChannelState::leave() {
  if (mux == nullptr) return;
  auto& was = *mux;
  mux = nullptr;
  was.forget(*this);
}

void ChannelState::sessionEnded() {
  mux = nullptr;
  sendQueue.clear();
  wakeSender(false);
  wakeReader();
  broke(BulkEnd::SESSION_ENDED);
}

}  // namespace _
}  // namespace postern
