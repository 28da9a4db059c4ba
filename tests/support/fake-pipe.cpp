#include "tests/support/fake-pipe.h"

#include <kj/debug.h>

#include <algorithm>

namespace postern::test {

void FakeDirection::wakeReader() {
  KJ_IF_MAYBE (fulfiller, reader) {
    auto own = kj::mv(*fulfiller);
    reader = nullptr;
    own->fulfill();
  }
}

void FakeDirection::wakeWriter() {
  KJ_IF_MAYBE (fulfiller, writer) {
    auto own = kj::mv(*fulfiller);
    writer = nullptr;
    own->fulfill();
  }
}

void FakeDirection::setStalled(bool value) {
  stalled = value;
  if (!stalled) wakeReader();
}

void FakeDirection::end() {
  ended = true;
  wakeReader();
  wakeWriter();
}

void FakeDirection::setConnected(bool value) {
  connected = value;
  wakeReader();
  wakeWriter();
}

void FakeDirection::inject(kj::ArrayPtr<const kj::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
  if (!stalled) wakeReader();
}

void FakeDirection::drop() {
  bytes.clear();
  wakeWriter();
}

kj::Array<kj::byte> FakeDirection::take() {
  auto result = kj::heapArray<kj::byte>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), result.begin());
  drop();
  return result;
}

PipeResult FakeDirection::read(kj::ArrayPtr<kj::byte> buffer) {
  KJ_REQUIRE(buffer.size() > 0);
  if (stalled) return {PipeState::OPEN, 0};
  size_t n = std::min({buffer.size(), bytes.size(), readAtMost});
  if (n == 0) {
    if (ended) return {PipeState::ENDED, 0};
    return {connected ? PipeState::OPEN : PipeState::NOT_CONNECTED, 0};
  }
  auto end = bytes.begin() + static_cast<std::ptrdiff_t>(n);
  std::copy(bytes.begin(), end, buffer.begin());
  bytes.erase(bytes.begin(), end);
  wakeWriter();
  return {PipeState::OPEN, n};
}

PipeResult FakeDirection::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (ended) return {PipeState::ENDED, 0};
  if (!connected) return {PipeState::OPEN, 0};
  size_t room = std::min(capacity > bytes.size() ? capacity - bytes.size() : 0, writeAtMost);
  size_t taken = 0;
  for (auto piece : pieces) {
    for (kj::byte b : piece) {
      if (taken == room) break;
      KJ_IF_MAYBE (cut, cutAfter) {
        if (totalWritten >= *cut) {
          end();
          return taken > 0 ? PipeResult{PipeState::OPEN, taken} : PipeResult{PipeState::ENDED, 0};
        }
      }
      KJ_IF_MAYBE (flip, flipAt) {
        if (totalWritten == *flip) b = static_cast<kj::byte>(b ^ flipMask);
      }
      bytes.push_back(b);
      if (tap != nullptr) tap->add(b);
      ++totalWritten;
      ++taken;
    }
  }
  if (taken > 0 && !stalled) wakeReader();
  return {PipeState::OPEN, taken};
}

kj::Promise<void> FakeDirection::whenReadable() {
  if (!stalled && (!bytes.empty() || ended)) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  reader = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

kj::Promise<void> FakeDirection::whenWritable() {
  if (ended || (connected && bytes.size() < capacity)) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  writer = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

PipeResult FakePipe::read(kj::ArrayPtr<kj::byte> buffer) {
  if (closed) return {PipeState::ENDED, 0};
  return in.read(buffer);
}

PipeResult FakePipe::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (closed) return {PipeState::ENDED, 0};
  return out.write(pieces);
}

void FakePipe::close() {
  if (closed) return;
  closed = true;
  if (serial) return;
  in.end();
  out.end();
}

}  // namespace postern::test
