#include "protocol/rpc-stream.h"

#include <capnp/serialize.h>
#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "protocol/limits.h"

namespace postern {

namespace {

// What fits into a block between headroom and tag, in whole words.
constexpr size_t RECORD_CAPACITY = (BlockPool::BLOCK_BYTES - RECORD_HEADROOM - TAG_BYTES) & ~size_t(7);
static_assert(RECORD_CAPACITY <= MAX_RECORD_DATA_BYTES);

// A record begins in a buffer of this size and moves to a block when it outgrows it: a heartbeat or a ping takes no
// block, so that no timer for free blocks wakes a process in which nothing but these happens.
constexpr size_t SMALL_RECORD_BYTES = 1024;

size_t capacityOf(kj::ArrayPtr<const kj::byte> buffer) {
  return kj::min(buffer.size() - RECORD_HEADROOM - TAG_BYTES, RECORD_CAPACITY);
}

void fulfil(kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>>& waiter) {
  KJ_IF_MAYBE (fulfiller, waiter) {
    auto own = kj::mv(*fulfiller);
    waiter = nullptr;
    own->fulfill();
  }
}

}  // namespace

kj::Maybe<MessageError> RpcStream::receive(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data) {
  if (failure != nullptr || rpcIsDone) return nullptr;  // nobody will read it
  size_t before = incoming.size();
  KJ_IF_MAYBE (error, assembler.add(kj::mv(storage), data, incoming)) return *error;
  for (size_t i = before; i < incoming.size(); ++i) incomingBytes += incoming[i].words.asBytes().size();
  if (!incoming.empty()) fulfil(reader);
  return nullptr;
}

// T26
bool RpcStream::isFull() const {
  return incomingBytes >= limits::RPC_INCOMING_BYTES;
}

kj::Promise<void> RpcStream::whenDrained() {
  if (!isFull()) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  drainWaiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

kj::Maybe<OutgoingRecord> RpcStream::nextRecord() {
  if (outgoing.empty()) return nullptr;
  auto record = kj::mv(outgoing.front());
  outgoing.pop_front();
  outgoingBytes -= record.dataBytes;
  if (outgoingBytes <= limits::RPC_QUEUE_BYTES) {
    fulfil(sentFulfiller);
    sentPromise = nullptr;
  }
  return OutgoingRecord{{RecordType::RPC}, kj::mv(record.buffer), record.dataBytes};
}

void RpcStream::sessionEnded(End how, kj::StringPtr why) {
  if (failure != nullptr) return;
  failure = KJ_EXCEPTION(DISCONNECTED, "session ended", why);
  endedCleanly = how == End::CLEAN;
  outgoing.clear();
  outgoingBytes = 0;
  KJ_IF_MAYBE (fulfiller, sentFulfiller) {
    (*fulfiller)->reject(kj::cp(KJ_ASSERT_NONNULL(failure)));
    sentFulfiller = nullptr;
  }
  if (!endedCleanly) {
    incoming.clear();
    incomingBytes = 0;
  }
  fulfil(reader);
  fulfil(drainWaiter);
}

IncomingMessage RpcStream::takeIncoming() {
  auto message = kj::mv(incoming.front());
  incoming.pop_front();
  incomingBytes -= message.words.asBytes().size();
  if (!isFull()) fulfil(drainWaiter);
  return message;
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> RpcStream::tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                             capnp::ReaderOptions options,
                                                                             kj::ArrayPtr<capnp::word> scratchSpace) {
  using Result = kj::Maybe<capnp::MessageReaderAndFds>;
  if (!incoming.empty()) {
    auto message = takeIncoming();
    auto words = message.words;
    auto own = kj::heap<capnp::FlatArrayMessageReader>(words, options).attach(kj::mv(message.storage));
    return Result(capnp::MessageReaderAndFds{kj::mv(own), nullptr});
  }
  KJ_IF_MAYBE (why, failure) {
    if (endedCleanly && !assembler.midMessage()) return Result(nullptr);
    return kj::cp(*why);
  }
  KJ_REQUIRE(reader == nullptr, "one read at a time");
  auto paf = kj::newPromiseAndFulfiller<void>();
  reader = kj::mv(paf.fulfiller);
  return paf.promise.then(
      [this, fdSpace, options, scratchSpace]() { return tryReadMessage(fdSpace, options, scratchSpace); });
}

void RpcStream::append(kj::ArrayPtr<const kj::byte> bytes) {
  outgoingBytes += bytes.size();
  while (bytes.size() > 0) {
    if (outgoing.empty() || outgoing.back().dataBytes == RECORD_CAPACITY) {
      outgoing.push_back({pool.take(SMALL_RECORD_BYTES), 0});
    }
    auto& open = outgoing.back();
    if (bytes.size() > capacityOf(open.buffer) - open.dataBytes && open.buffer.size() == SMALL_RECORD_BYTES) {
      auto block = pool.take();
      memcpy(block.begin() + RECORD_HEADROOM, open.buffer.begin() + RECORD_HEADROOM, open.dataBytes);
      open.buffer = kj::mv(block);
    }
    size_t n = std::min(capacityOf(open.buffer) - open.dataBytes, bytes.size());
    memcpy(open.buffer.begin() + RECORD_HEADROOM + open.dataBytes, bytes.begin(), n);
    open.dataBytes += n;
    bytes = bytes.slice(n, bytes.size());
  }
}

void RpcStream::checkSendable(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  uint64_t total = capnp::computeSerializedSizeInWords(segments) * sizeof(capnp::word);
  if (segments.size() <= limits::MAX_RPC_SEGMENTS && total <= limits::MAX_RPC_MESSAGE_BYTES) return;
  // The RPC system skips all writes behind a failed one and tells no caller: only a failed read makes it give up.
  sessionEnded(End::FAILED, "an RPC message was too large to be sent");
  KJ_FAIL_REQUIRE("RPC message is too large to be sent", segments.size(), total);
}

void RpcStream::appendMessage(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  uint32_t table[limits::MAX_RPC_SEGMENTS + 2];
  size_t entries = 0;
  table[entries++] = static_cast<uint32_t>(segments.size() - 1);
  for (auto segment : segments) table[entries++] = static_cast<uint32_t>(segment.size());
  if (entries % 2 != 0) table[entries++] = 0;
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the segment table is little-endian");
  append(kj::arrayPtr(table, entries).asBytes());
  for (auto segment : segments) append(segment.asBytes());
}

kj::Promise<void> RpcStream::whenSent() {
  if (outgoingBytes <= limits::RPC_QUEUE_BYTES) return kj::READY_NOW;
  if (sentPromise == nullptr) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    sentFulfiller = kj::mv(paf.fulfiller);
    sentPromise = paf.promise.fork();
  }
  return KJ_ASSERT_NONNULL(sentPromise).addBranch();
}

kj::Promise<void> RpcStream::whenTaken() {
  if (hasEnded()) return kj::READY_NOW;
  return whenSent().catch_([](kj::Exception&&) {});
}

kj::Promise<void> RpcStream::writeMessage(kj::ArrayPtr<const int> fds,
                                          kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  KJ_REQUIRE(fds.size() == 0, "no descriptors travel between host and guest");
  KJ_IF_MAYBE (why, failure) return kj::cp(*why);
  checkSendable(segments);
  appendMessage(segments);
  wake();
  return whenSent();
}

kj::Promise<void> RpcStream::writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) {
  KJ_IF_MAYBE (why, failure) return kj::cp(*why);
  for (auto message : messages) checkSendable(message);
  for (auto message : messages) appendMessage(message);
  wake();
  return whenSent();
}

kj::Maybe<int> RpcStream::getSendBufferSize() {
  return limits::RPC_STREAM_WINDOW_BYTES;
}

// The RPC system is done, maybe because the peer sent what it cannot go on after. The session itself, with its bulk
// channels, is not, and ends with a CLOSE record of its own; until then what comes for RPC must not stop its reading.
kj::Promise<void> RpcStream::end() {
  rpcIsDone = true;
  incoming.clear();
  incomingBytes = 0;
  fulfil(drainWaiter);
  return kj::READY_NOW;
}

}  // namespace postern
