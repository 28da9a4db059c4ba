#include "protocol/record-writer.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <string.h>
#include <unistd.h>

#include "protocol/limits.h"
#include "tests/support/test-random.h"

namespace postern {
namespace {

// Takes everything at once, and has nothing to say.
class OpenLink final : public FrameLink {
 public:
  const HelloPair& hellos() const override { return pair; }
  void authenticated() override {}
  kj::OneOf<Frame, NoFrame, LinkEnd> readFrame() override { return NoFrame{}; }
  void park() override {}
  kj::Promise<void> whenReadable() override { return kj::NEVER_DONE; }
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    size_t total = 0;
    for (auto piece : pieces) total += piece.size();
    return {PipeState::OPEN, total};
  }
  kj::Promise<void> whenWritable() override { return kj::READY_NOW; }
  void close() override {}

 private:
  HelloPair pair;
};

// Has `left` full records.
struct Source final : public RecordSource {
  size_t left = 0;
  kj::Maybe<OutgoingRecord> nextRecord() override {
    if (left == 0) return nullptr;
    --left;
    auto buffer = kj::heapArray<kj::byte>(RECORD_HEADROOM + MAX_RECORD_DATA_BYTES + TAG_BYTES);
    memset(buffer.begin(), 0, buffer.size());
    return OutgoingRecord{{RecordType::BULK}, kj::mv(buffer), MAX_RECORD_DATA_BYTES};
  }
};

TEST_CASE("what comes in while a link takes everything is looked at behind every burst") {
  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd readEnd(ends[0]), writeEnd(ends[1]);
  kj::UnixEventPort::FdObserver observer(io.unixEventPort, readEnd, kj::UnixEventPort::FdObserver::OBSERVE_READ);
  constexpr size_t RECORDS = 100;
  Source control, rpc, bulk;
  bulk.left = RECORDS;
  OpenLink link;
  SealingKey key;
  test::TestRandom().fill(key.bytes.asPtr());
  RecordWriter writer(
      link, RecordSealer(kj::mv(key), {}), io.provider->getTimer(), control, rpc, bulk, []() {},
      [](kj::Exception&& exception) { FAIL(exception.getDescription().cStr()); });

  writer.wake();
  KJ_SYSCALL(write(writeEnd, "x", 1));
  observer.whenBecomesReadable().wait(io.waitScope);
  CHECK(writer.bytesSealed() <= 2 * limits::WRITE_BURST_BYTES);
  writer.whenEmpty().wait(io.waitScope);
  CHECK(bulk.left == 0);
  CHECK(writer.bytesSealed() >= RECORDS * MAX_RECORD_DATA_BYTES);
}

}  // namespace
}  // namespace postern
