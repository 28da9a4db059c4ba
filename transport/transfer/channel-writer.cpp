#include "transport/transfer/channel-writer.h"

#include <string.h>

#include <algorithm>

namespace postern::transfer {

void ChannelWriter::put(kj::ArrayPtr<const kj::byte> bytes) {
  if (ended) return;
  waitingBytes += bytes.size();
  while (bytes.size() > 0) {
    if (blocks.empty() || !blocks.back().open) {
      blocks.emplace_back();
      auto fresh = channel.newBlock();
      blocks.back().storage = kj::mv(fresh.storage);
      blocks.back().open = true;
    }
    auto& block = blocks.back();
    size_t n = std::min(MAX_BULK_DATA_BYTES - block.end, bytes.size());
    memcpy(block.space().begin() + block.end, bytes.begin(), n);
    block.end += n;
    bytes = bytes.slice(n, bytes.size());
    if (block.end == MAX_BULK_DATA_BYTES) {
      block.open = false;
      flush();
    }
  }
}

void ChannelWriter::putBlock(kj::Array<kj::byte> block, size_t size) {
  if (ended) return;
  if (!blocks.empty()) blocks.back().open = false;
  waitingBytes += size;
  blocks.emplace_back();
  blocks.back().storage = kj::mv(block);
  blocks.back().end = size;
  flush();
}

void ChannelWriter::flush() {
  if (sending || blocks.empty()) return;
  sending = true;
  task = sendAll().eagerlyEvaluate(nullptr);
}

kj::Promise<void> ChannelWriter::sendAll() {
  while (!blocks.empty()) {
    size_t sendable = channel.sendable();
    if (sendable == 0) {
      return channel.whenSendable().then([this](bool canSend) -> kj::Promise<void> {
        if (canSend) return sendAll();
        end();
        return kj::READY_NOW;
      });
    }
    sendSome(sendable);
    wake();
  }
  sending = false;
  return kj::READY_NOW;
}

void ChannelWriter::sendSome(size_t sendable) {
  auto& block = blocks.front();
  size_t n = std::min(sendable, block.end - block.begin);
  waitingBytes -= n;
  if (block.begin + n < block.end) {
    // Credit ends within it.
    auto part = channel.newBlock();
    memcpy(part.space().begin(), block.space().begin() + block.begin, n);
    block.begin += n;
    channel.send(kj::mv(part), n);
    return;
  }
  if (block.begin > 0) memmove(block.space().begin(), block.space().begin() + block.begin, n);
  BulkBlock whole{kj::mv(block.storage)};
  blocks.pop_front();
  channel.send(kj::mv(whole), n);
}

kj::Promise<bool> ChannelWriter::whenWaiting(size_t limit) {
  if (ended) return false;
  if (waitingBytes <= limit) return true;
  auto paf = kj::newPromiseAndFulfiller<bool>();
  waiters.add(Waiter{limit, kj::mv(paf.fulfiller)});
  return kj::mv(paf.promise);
}

void ChannelWriter::end() {
  ended = true;
  blocks.clear();
  waitingBytes = 0;
  wake();
}

void ChannelWriter::stop() {
  task = kj::READY_NOW;
  end();
}

void ChannelWriter::wake() {
  kj::Vector<Waiter> left;
  for (auto& waiter : waiters) {
    if (ended || waitingBytes <= waiter.limit) {
      waiter.fulfiller->fulfill(!ended);
    } else {
      left.add(kj::mv(waiter));
    }
  }
  waiters = kj::mv(left);
}

}  // namespace postern::transfer
