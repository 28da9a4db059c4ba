#include <doctest/doctest.h>
#include <sys/socket.h>

#include <atomic>

#include "tests/unit/transport/transfer-fixture.h"
#include "transport/transfer/opener-socket.h"

using namespace postern;
using namespace postern::transfer;
using namespace postern::test;

namespace {

void failedMessage(FrameBuilder& frame) {
  auto problem = transfer::problem(ProblemKind::FAILED, kj::str("a detail of some length, so that packets fill up"));
  write(Backward(DestinationFailed{1, kj::str("a/path/of/some/length"), kj::mv(problem)}),
        frame.init<schema::ToMover>().initBackward());
}

}  // namespace

TEST_CASE("frames are gathered to packets, and one with a descriptor goes at once") {
  auto ends = newSocketEnds();
  OpenerSocket socket(kj::mv(ends.opener));
  OpenerPeer peer(kj::mv(ends.mover));
  FrameBuilder frame;
  failedMessage(frame);
  CHECK(socket.put(frame));
  CHECK(peer.receiveNow() == nullptr);
  frame.init<schema::ToMover>().initOpened().setEntry(7);
  int descriptor = STDERR_FILENO;
  CHECK(socket.put(frame, nullptr, kj::arrayPtr(&descriptor, 1)));
  CHECK(KJ_ASSERT_NONNULL(peer.receiveNow()).descriptors.size() == 0);
  auto opened = KJ_ASSERT_NONNULL(peer.receiveNow());
  CHECK(opened.message.get<Opened>().entry == 7);
  CHECK(opened.descriptors.size() == 1);
}

TEST_CASE("content that was read to its place travels as it is") {
  auto ends = newSocketEnds();
  OpenerSocket socket(kj::mv(ends.opener));
  OpenerPeer peer(kj::mv(ends.mover));
  FrameBuilder frame;
  for (size_t bytes : {size_t(1), size_t(7), size_t(8), DATA_BYTES}) {
    auto content = bytesOf(bytes, unsigned(bytes));
    write(Forward(Data{0}), frame.init<schema::ToMover>().initForward());
    auto space = socket.contentSpace(frame, bytes);
    REQUIRE(space.size() == bytes);
    memcpy(space.begin(), content.data(), bytes);
    CHECK(socket.put(frame, space));
    CHECK(socket.flush());
    auto message = KJ_ASSERT_NONNULL(peer.receive());
    CHECK(message.content.asPtr() == kj::StringPtr(content.data(), content.size()).asBytes());
  }
}

TEST_CASE("two ends that both have much to say do not wait for each other") {
  auto ends = newSocketEnds();
  OpenerSocket one(kj::mv(ends.opener));
  OpenerSocket two(kj::mv(ends.mover));
  constexpr unsigned COUNT = 20000;
  std::atomic<unsigned> taken{0};
  auto talk = [&](OpenerSocket& socket) {
    unsigned heard = 0;
    auto takeAll = [&]() {
      while (socket.hasNext()) {
        auto next = KJ_ASSERT_NONNULL(socket.next(nullptr));
        if (!next.is<FrameView*>()) return false;
        ++heard;
      }
      return true;
    };
    socket.whileBlocked(takeAll);
    FrameBuilder frame;
    for (unsigned i = 0; i < COUNT; ++i) {
      failedMessage(frame);
      KJ_ASSERT(socket.put(frame));
    }
    KJ_ASSERT(socket.flush());
    while (heard < COUNT) {
      KJ_ASSERT(KJ_ASSERT_NONNULL(socket.next(nullptr)).is<FrameView*>());
      ++heard;
    }
    taken += heard;
  };
  {
    kj::Thread other([&]() { talk(one); });
    talk(two);
  }
  CHECK(taken == 2 * COUNT);
}

TEST_CASE("a limit passes, and shutting the socket down ends a wait and a put") {
  auto ends = newSocketEnds();
  int raw = ends.opener;
  OpenerSocket socket(kj::mv(ends.opener));
  CHECK(socket.next(20 * kj::MILLISECONDS) == nullptr);
  {
    kj::Thread other([&]() {
      usleep(20000);
      shutdown(raw, SHUT_RDWR);
    });
    FrameBuilder frame;
    bool goes = true;
    while (goes) {
      failedMessage(frame);
      goes = socket.put(frame);
    }
  }
  CHECK(KJ_ASSERT_NONNULL(socket.next(nullptr)).is<MoverGone>());
  CHECK(!socket.flush());
}

TEST_CASE("an opener whose socket is shut down ends, whatever it waits for") {
  TempDir dir;
  writeFile(dir.file("file"), "content");
  for (bool source : {true, false}) {
    auto ends = newSocketEnds();
    int raw = ends.opener;
    kj::Maybe<OpenerEnd> end;
    Listeners listener;
    DestinationOptions options;
    options.into = true;
    {
      kj::Thread opener([&]() {
        kj::Vector<SourceTop> tops;
        tops.add(SourceTop{folderAt(dir.path()), kj::str("file"), kj::str("file"), kj::str("file"), nullptr, false});
        end = source ? runSourceOpener(kj::mv(ends.opener), kj::mv(tops), {}, listener)
                     : runDestinationOpener(kj::mv(ends.opener), folderAt(dir.path()), options, listener);
      });
      usleep(20000);
      shutdown(raw, SHUT_RDWR);
    }
    CHECK(KJ_ASSERT_NONNULL(end).is<Problem>());
  }
}
