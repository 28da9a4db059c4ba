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

// A writer to an OpenLink, and a byte that has come in on a descriptor which its loop watches.
struct Writing {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd readEnd, writeEnd;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;
  Source control, rpc, bulk;
  OpenLink link;
  kj::Maybe<RecordWriter> writer;

  Writing() {
    io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
    int ends[2];
    KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    readEnd = kj::AutoCloseFd(ends[0]);
    writeEnd = kj::AutoCloseFd(ends[1]);
    observer.emplace(io.unixEventPort, readEnd, kj::UnixEventPort::FdObserver::OBSERVE_READ);
    KJ_SYSCALL(write(writeEnd, "x", 1));
    SealingKey key;
    test::TestRandom().fill(key.bytes.asPtr());
    writer.emplace(
        link, RecordSealer(kj::mv(key), {}), io.provider->getTimer(), control, rpc, bulk, []() {},
        [](kj::Exception&& exception) { FAIL(exception.getDescription().cStr()); });
  }

  RecordWriter& use() { return KJ_ASSERT_NONNULL(writer); }
  // What was sealed until the loop saw the byte.
  uint64_t sealedUntilSeen() {
    KJ_ASSERT_NONNULL(observer).whenBecomesReadable().wait(io.waitScope);
    return use().bytesSealed();
  }
};

constexpr size_t RECORDS = 100;

TEST_CASE("what comes in while a link takes everything is looked at behind every burst") {
  Writing writing;
  writing.bulk.left = RECORDS;
  writing.use().wake();
  CHECK(writing.sealedUntilSeen() <= 2 * limits::WRITE_BURST_BYTES);
  writing.use().whenEmpty().wait(writing.io.waitScope);
  CHECK(writing.bulk.left == 0);
  CHECK(writing.use().bytesSealed() >= RECORDS * MAX_RECORD_DATA_BYTES);
}

TEST_CASE("and also where each record is made when the one before has gone") {
  Writing writing;
  size_t made = 0;
  kj::Function<kj::Promise<void>()> makeNext = [&]() -> kj::Promise<void> {
    if (++made > RECORDS) return kj::READY_NOW;
    writing.bulk.left = 1;
    writing.use().wake();
    return writing.use().whenEmpty().then([&]() { return makeNext(); });
  };
  auto making = makeNext().eagerlyEvaluate(nullptr);
  CHECK(writing.sealedUntilSeen() <= 2 * limits::WRITE_BURST_BYTES);
  making.wait(writing.io.waitScope);
  CHECK(writing.use().bytesSealed() >= RECORDS * MAX_RECORD_DATA_BYTES);
}

}  // namespace
}  // namespace postern
