// A StreamLink among others on one loop.

#include <doctest/doctest.h>
#include <string.h>

#include "protocol/read-scratch.h"
#include "tests/support/test-random.h"
#include "transport/stream-link.h"

namespace postern {
namespace {

constexpr size_t SMALL_FRAME_BYTES = 64;

// A peer that is always ahead of the reader: every read is filled with whole frames.
class FloodingPipe final : public BytePipe {
 public:
  explicit FloodingPipe(const Hello& own) : own(own) {}

  LinkTag tag{};

  PipeResult read(kj::ArrayPtr<kj::byte> buffer) override {
    if (!helloSent) {
      helloSent = true;
      writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, buffer);
      writeHello(own, buffer.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES));
      return {PipeState::OPEN, HELLO_FRAME_BYTES};
    }
    size_t frames = buffer.size() / SMALL_FRAME_BYTES;
    memset(buffer.begin(), 0, buffer.size());
    for (size_t i = 0; i < frames; ++i) {
      writeFrameHeader({SMALL_FRAME_BYTES - FRAME_HEADER_BYTES, FrameKind::RECORD, tag},
                       buffer.slice(i * SMALL_FRAME_BYTES, buffer.size()));
    }
    return {PipeState::OPEN, frames * SMALL_FRAME_BYTES};
  }
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    size_t size = 0;
    for (auto piece : pieces) size += piece.size();
    return {PipeState::OPEN, size};
  }
  kj::Promise<void> whenReadable() override { return kj::READY_NOW; }
  kj::Promise<void> whenWritable() override { return kj::READY_NOW; }
  void close() override {}

 private:
  Hello own;
  bool helloSent = false;
};

TEST_CASE("a peer whose reads end with a frame's end each time does not keep the loop to itself") {
  kj::EventLoop loop;
  kj::WaitScope waitScope(loop);
  ReadScratch scratch;
  test::TestRandom random(1);
  Hello guest, host;
  guest.role = Role::GUEST;
  host.role = Role::HOST;
  random.fill(kj::arrayPtr(guest.nonce.data(), guest.nonce.size()));
  random.fill(kj::arrayPtr(host.nonce.data(), host.nonce.size()));
  auto pipe = kj::heap<FloodingPipe>(guest);
  pipe->tag = linkTag(host.nonce, guest.nonce);
  auto opened = openStreamLink(kj::mv(pipe), host, scratch).wait(waitScope);
  auto& link = *opened.get<kj::Own<FrameLink>>();
  link.authenticated();
  constexpr size_t AT_ONCE = limits::READ_BYTES / SMALL_FRAME_BYTES;
  size_t frames = 0;
  for (int turn = 0; turn < 5; ++turn) {
    for (size_t inTurn = 0;; ++inTurn) {
      auto next = link.readFrame();
      REQUIRE(!next.is<LinkEnd>());
      if (next.is<NoFrame>()) break;
      ++frames;
      REQUIRE(inTurn < AT_ONCE);
    }
    // More is there: the wait is only for the others' turn.
    CHECK(link.whenReadable().poll(waitScope));
  }
  CHECK(frames >= 4 * AT_ONCE);
}

}  // namespace
}  // namespace postern
