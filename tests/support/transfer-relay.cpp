#include "tests/support/transfer-relay.h"

#include <kj/debug.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "protocol/transfer/limits.h"

namespace postern::test {

using namespace transfer;

namespace {

constexpr size_t BLOCK_BYTES = size_t(128) << 10;

size_t readAt(int descriptor, kj::ArrayPtr<kj::byte> to, uint64_t offset) {
  size_t have = 0;
  while (have < to.size()) {
    ssize_t n = pread(descriptor, to.begin() + have, to.size() - have, off_t(offset + have));
    if (n <= 0) break;
    have += size_t(n);
  }
  return have;
}

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](kj::byte b) { return b == 0; });
}

}  // namespace

void TransferRelay::vanish() {
  source.close();
  destination.close();
}

void TransferRelay::run() {
  while (!source.isClosed() || !destination.isClosed()) {
    source.flush();
    destination.flush();
    bool some = false;
    KJ_IF_MAYBE (message, destination.receiveNow()) {
      some = true;
      if (!fromDestination(*message)) return vanish();
    }
    // No faster than the destination takes it.
    if (!destination.hasUnsent()) {
      KJ_IF_MAYBE (message, source.receiveNow()) {
        some = true;
        if (!fromSource(kj::mv(*message))) return vanish();
      }
    }
    if (some) continue;
    // Of an end that has closed, the other one hears by its own.
    if (source.isClosed() || (destination.isClosed() && !source.hasUnsent())) return vanish();
    pollfd both[] = {{source.descriptor(), short(source.hasUnsent() ? POLLIN | POLLOUT : POLLIN), 0},
                     {destination.descriptor(), short(destination.hasUnsent() ? POLLIN | POLLOUT : POLLIN), 0}};
    if (destination.hasUnsent()) both[0].events = short(source.hasUnsent() ? POLLOUT : 0);
    poll(both, 2, -1);
  }
}

bool TransferRelay::fromDestination(OpenerPeer::Message& message) {
  KJ_ASSERT(message.message.is<Backward>(), "what was opened was not awaited");
  source.send(message.message.get<Backward>());
  return true;
}

bool TransferRelay::fromSource(OpenerPeer::Message message) {
  if (++forwarded > options.vanishAfter) return false;
  auto& forward = message.message.get<Forward>();
  destination.send(forward, message.content);
  if (!forward.is<Entry>()) return true;
  auto& entry = forward.get<Entry>();
  uint64_t number = entries++;
  if (entry.kind != EntryKind::FILE || entry.inlined || message.descriptors.size() == 0) return true;
  return largeFile(number, entry.size, message.descriptors[0]);
}

bool TransferRelay::largeFile(uint64_t number, uint64_t size, int content) {
  for (;;) {
    auto answer = destination.receive();
    if (answer == nullptr) return false;
    auto& message = KJ_ASSERT_NONNULL(answer);
    if (message.message.is<Opened>()) {
      KJ_ASSERT(message.message.get<Opened>().entry == number);
      auto commit = copyFile(number, size, content, message);
      if (options.vanishInFile) return false;
      destination.send(commit);
      return true;
    }
    auto& backward = message.message.get<Backward>();
    bool failed = backward.is<DestinationFailed>() && backward.get<DestinationFailed>().entry == number;
    source.send(backward);
    if (failed) return true;
  }
}

Commit TransferRelay::copyFile(uint64_t number, uint64_t size, int from, OpenerPeer::Message& message) {
  auto& opened = message.message.get<Opened>();
  KJ_ASSERT(message.descriptors.size() == (opened.hasBase ? 2u : 1u));
  int to = message.descriptors[0];
  if (opened.resumed) ++resumed;
  bool half = options.vanishInFile || options.keepFirst;
  bool sameAsBase = opened.hasBase;
  uint64_t end = half ? size / 2 : size;
  auto block = kj::heapArray<kj::byte>(BLOCK_BYTES);
  auto other = kj::heapArray<kj::byte>(BLOCK_BYTES);
  for (uint64_t at = 0; at < end; at += BLOCK_BYTES) {
    size_t wanted = size_t(std::min(uint64_t(BLOCK_BYTES), end - at));
    size_t have = readAt(from, block, at);
    if (have < wanted || options.cutSource) {
      return {number, Outcome(problem(ProblemKind::CHANGED, kj::str("is shorter than it was"))), false};
    }
    auto bytes = block.slice(0, wanted);
    if (sameAsBase) {
      sameAsBase =
          readAt(message.descriptors[1], other.slice(0, wanted), at) == wanted && bytes == other.slice(0, wanted);
    }
    if (opened.resumed && readAt(to, other.slice(0, wanted), at) == wanted && bytes == other.slice(0, wanted)) continue;
    copied += wanted;
    if (isZero(bytes)) continue;
    ssize_t n;
    KJ_SYSCALL(n = pwrite(to, bytes.begin(), wanted, off_t(at)));
    KJ_ASSERT(size_t(n) == wanted);
  }
  if (half) {
    options.keepFirst = false;
    return {number, Outcome(Kept()), false};
  }
  if (sameAsBase && readAt(message.descriptors[1], block, size) == 0) return {number, Outcome(Unchanged()), false};
  KJ_SYSCALL(ftruncate(to, off_t(size)));
  return {number, Outcome(Whole()), false};
}

}  // namespace postern::test
