// SerialLink over a pipe on which anything may arrive: it is UP only when a SYNC that echoes its current epoch was in
// the input, hands out only frames that were in the input with the tag of both epochs, sends only whole SYNCs and what
// it was told to send, and keeps little.
//
// input = steps, each u8 kind and what that needs:
//   0 u8 n, n bytes: they arrive    1 u8 flags: a SYNC (1 with the wrong echo, 2 wants a reply, 4 from a new epoch,
//     8 with a wrong checksum, 16 from the same role)       2 u8 n: the first n bytes of a sync word
//   3 u8 kind, u8 n: a frame of n * 16 bytes, of the link's tag if UP      4 u8 n: n * 50 ms pass
//   5 u8: even, the device loses its peer; odd, it has one again           6 u8 n: reads give n bytes at most (0: any)
//   7 u8 n: the pipe takes n * 8 bytes (255: any)        8 what was sent is read      9 close       10 accept
//   11 the session is authenticated      12 u8 n: the session writes n bytes of a frame     13 other offer
//   14 u8 n: what is written goes out n bytes at a time (0: any)           15 u8: even, park after a frame; odd, go on

#include <sanitizer/allocator_interface.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "protocol/limits.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"
#include "tests/support/fake-pipe.h"
#include "tests/support/test-random.h"
#include "transport/serial-link.h"

namespace postern::fuzz {
namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

// What the link may hold beside the frame it is in: it promises 4 KiB. The rest is the loop's and this program's.
constexpr size_t MAX_KEPT_BYTES = 16 << 10;

kj::Array<kj::byte> encodeSync(const Hello& hello) {
  auto sync = kj::heapArray<kj::byte>(SYNC_BYTES);
  std::copy(SYNC_WORD.begin(), SYNC_WORD.end(), sync.begin());
  auto frame = sync.slice(SYNC_WORD_BYTES, SYNC_BYTES);
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
  writeHello(hello, frame.slice(FRAME_HEADER_BYTES, frame.size()));
  return sync;
}

Hello helloFrom(Role role) {
  Hello hello;
  hello.role = role;
  hello.transport = TransportKind::SERIAL;
  hello.patterns = PATTERN_KKPSK0;
  return hello;
}

// All valid HELLOs that stand behind a sync word in these bytes, as the other end of `own` reads them.
std::vector<Hello> syncsIn(Bytes bytes, const Hello& own) {
  std::vector<Hello> found;
  auto at = bytes.begin();
  for (;;) {
    at = std::search(at, bytes.end(), SYNC_WORD.begin(), SYNC_WORD.end());
    if (static_cast<size_t>(bytes.end() - at) < SYNC_BYTES) return found;
    auto parsed = parseHello(kj::arrayPtr(at + SYNC_WORD_BYTES + FRAME_HEADER_BYTES, HELLO_BYTES), own);
    if (parsed.is<Hello>()) found.push_back(parsed.get<Hello>());
    at += SYNC_WORD_BYTES;
  }
}

class Stage {
 public:
  Stage()
      : waitScope(loop),
        timer(kj::origin<kj::TimePoint>()),
        own(helloFrom(Role::HOST)),
        peer(helloFrom(Role::GUEST)),
        pipe(wire.toHost, wire.toGuest),
        allocatedBefore(0) {
    pipe.serial = true;
    peer.nonce.fill(1);
    link = kj::heap<SerialLink>(pipe, own, random, timer, scratch);
    allocatedBefore = __sanitizer_get_current_allocated_bytes();
    accept();
  }

  void step(Input& input);

  void settle() {
    waitScope.poll();
    readAnswers();
    judgeMemory();
  }

  // The end of the pipe ends everything, and then nothing more is to be had.
  void judgeEnd() {
    wire.toHost.setStalled(false);
    wire.toHost.setConnected(true);
    wire.toHost.readAtMost = kj::maxValue;
    parking = false;
    wire.toHost.end();
    wire.toGuest.end();
    readAgain();
    waitScope.poll();
    expect(connection == nullptr, "a connection ends with its pipe");
    if (!accepting) accept();
    waitScope.poll();
    expect(!accepting, "accept() is resolved when its pipe has ended");
    expect(connection == nullptr, "no connection over a pipe that has ended");
  }

 private:
  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  test::FakeWire wire;
  test::TestRandom random;
  ReadScratch scratch;
  Hello own;
  Hello peer;  // as the next SYNC will have it
  test::FakePipe pipe;
  kj::Own<SerialLink> link;
  size_t allocatedBefore;

  std::vector<kj::byte> arrived;  // all of it
  std::vector<kj::byte> sent;
  Epoch ownEpoch{};  // as the link's last SYNC had it
  bool accepting = false;
  bool isAuthenticated = false;
  bool parking = false;
  kj::Promise<void> acceptTask = nullptr;
  kj::Promise<void> readTask = nullptr;
  kj::Promise<void> writableTask = kj::READY_NOW;
  kj::Own<FrameLink> connectionOwn;
  kj::Maybe<FrameLink&> connection;
  size_t frameLeft = 0;  // of the frame that the session is writing

  void arrive(Bytes bytes) {
    arrived.insert(arrived.end(), bytes.begin(), bytes.end());
    wire.toHost.inject(bytes);
  }

  void accept() {
    if (accepting || connection != nullptr) return;
    accepting = true;
    acceptTask = link->accept()
                     .then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> result) {
                       accepting = false;
                       if (result.is<kj::Own<FrameLink>>()) isUp(kj::mv(result.get<kj::Own<FrameLink>>()));
                     })
                     .eagerlyEvaluate([](kj::Exception&& e) { expect(false, kj::str("accept() threw: ", e).cStr()); });
  }

  void isUp(kj::Own<FrameLink> up) {
    connectionOwn = kj::mv(up);
    connection = *connectionOwn;
    isAuthenticated = false;
    frameLeft = 0;
    auto& hellos = connectionOwn->hellos();
    auto syncs = syncsIn(kj::arrayPtr(arrived.data(), arrived.size()), own);
    bool heard = std::any_of(syncs.begin(), syncs.end(), [&](const Hello& sync) {
      return sync.echo == hellos.own.epoch() && sync.nonce == hellos.peer.nonce;
    });
    expect(heard, "a link is UP only when a SYNC has echoed its epoch");
    readTask = kj::evalLater([this]() { return read(); }).eagerlyEvaluate(nullptr);
  }

  kj::Promise<void> read() {
    for (;;) {
      auto next = connectionOwn->readFrame();
      KJ_SWITCH_ONEOF(next) {
        KJ_CASE_ONEOF(end, LinkEnd) {
          expect(connectionOwn->readFrame().is<LinkEnd>(), "an end is an end");
          connection = nullptr;
          return kj::READY_NOW;
        }
        KJ_CASE_ONEOF(_, NoFrame) {
          return connectionOwn->whenReadable().then([this]() { return read(); });
        }
        KJ_CASE_ONEOF(frame, Frame) {
          judgeFrame(frame);
          if (parking) {
            connectionOwn->park();
            spoilScratch();
            return kj::READY_NOW;
          }
        }
      }
    }
  }

  void readAgain() {
    if (connection != nullptr) readTask = kj::evalLater([this]() { return read(); }).eagerlyEvaluate(nullptr);
  }

  void judgeFrame(const Frame& frame) {
    expect(frame.kind != FrameKind::HELLO, "a session gets no HELLO");
    expect(frame.body.size() <= (isAuthenticated ? MAX_FRAME_BODY_BYTES : limits::MAX_HANDSHAKE_BODY_BYTES),
           "no frame is over the bound");
    auto whole = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + frame.body.size());
    auto length = static_cast<uint16_t>(frame.body.size());
    writeFrameHeader({length, frame.kind, linkTag(connectionOwn->hellos())}, whole);
    std::copy(frame.body.begin(), frame.body.end(), whole.begin() + FRAME_HEADER_BYTES);
    expect(std::search(arrived.begin(), arrived.end(), whole.begin(), whole.end()) != arrived.end(),
           "a frame that is handed out has arrived, with the tag of both epochs");
  }

  // As another link of the process does between two turns of the loop.
  void spoilScratch() { memset(scratch.buffer().begin(), 0xee, 4096); }

  void sendSync(uint8_t flags) {
    if ((flags & 4) != 0) ++peer.nonce[0];
    Hello hello = peer;
    hello.echo = ownEpoch;
    if ((flags & 1) != 0) ++hello.echo[7];
    hello.replyWanted = (flags & 2) != 0;
    if ((flags & 16) != 0) hello.role = own.role;
    auto sync = encodeSync(hello);
    if ((flags & 8) != 0) ++sync.back();
    arrive(sync);
  }

  void sendFrame(uint8_t kind, size_t size) {
    LinkTag tag{};
    KJ_IF_MAYBE (c, connection) tag = linkTag(c->hellos());
    auto frame = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + size);
    memset(frame.begin(), kind, frame.size());
    writeFrameHeader({static_cast<uint16_t>(size), static_cast<FrameKind>(kind), tag}, frame);
    arrive(frame);
  }

  // The session is always in step with its own frames, as the real one is.
  void write(size_t count) {
    KJ_IF_MAYBE (c, connection) {
      kj::byte bytes[FRAME_HEADER_BYTES + 248] = {};
      if (frameLeft == 0) frameLeft = sizeof(bytes);
      writeFrameHeader({248, FrameKind::RECORD, linkTag(c->hellos())}, bytes);
      Bytes piece = kj::arrayPtr(bytes + sizeof(bytes) - frameLeft, std::min(frameLeft, count));
      auto result = c->write(kj::arrayPtr(&piece, 1));
      expect(result.bytes <= piece.size(), "no more is written than was given");
      frameLeft -= result.bytes;
      if (result.bytes < piece.size()) writableTask = c->whenWritable().eagerlyEvaluate(nullptr);
    }
  }

  void close() {
    if (connectionOwn.get() == nullptr) return;
    readTask = kj::READY_NOW;
    writableTask = kj::READY_NOW;
    connectionOwn->close();
    connection = nullptr;
    connectionOwn = nullptr;
  }

  // Everything that a link says is at the end a SYNC of an epoch that is new or the one before.
  void readAnswers() {
    auto more = wire.toGuest.take();
    sent.insert(sent.end(), more.begin(), more.end());
    auto syncs = syncsIn(kj::arrayPtr(sent.data(), sent.size()), peer);
    if (syncs.empty()) return;
    ownEpoch = syncs.back().epoch();
    for (auto& sync : syncs) {
      expect(sync.role == own.role && sync.transport == TransportKind::SERIAL, "a link says what it was told to");
    }
    sent.erase(sent.begin(), sent.end() - static_cast<std::ptrdiff_t>(std::min(sent.size(), SYNC_BYTES - 1)));
  }

  void judgeMemory() {
    if (wire.toHost.lying() > 0 || isAuthenticated) return;
    size_t mine = arrived.capacity() + sent.capacity();
    size_t now = __sanitizer_get_current_allocated_bytes();
    expect(now <= allocatedBefore + mine + MAX_KEPT_BYTES, "an unauthenticated peer costs little memory");
  }
};

void Stage::step(Input& input) {
  uint8_t kind = input.u8() % 16;
  if (kind >= 8 && kind <= 11) {
    if (kind == 9) close();
    if (kind == 10) accept();
    if (kind == 11 && connection != nullptr) {
      isAuthenticated = true;
      connectionOwn->authenticated();
    }
    return;
  }
  uint8_t number = input.u8();
  switch (kind) {
    case 0:
      return arrive(input.take(number));
    case 1:
      return sendSync(number);
    case 2:
      return arrive(kj::arrayPtr(SYNC_WORD.data(), number % SYNC_WORD_BYTES));
    case 3:
      return sendFrame(number, size_t(input.u8()) * 16);
    case 4:
      timer.advanceTo(timer.now() + number * 50 * kj::MILLISECONDS);
      return;
    case 5:
      wire.toHost.setConnected(number % 2 == 1);
      return wire.toGuest.setConnected(number % 2 == 1);
    case 6:
      wire.toHost.readAtMost = number == 0 ? size_t(kj::maxValue) : number;
      return;
    case 7:
      wire.toGuest.capacity = number == 255 ? size_t(kj::maxValue) : number * size_t(8);
      return;
    case 12:
      return write(number);
    case 13:
      own.keyHint.fill(number);
      return link->offer(own);
    case 14:
      wire.toGuest.writeAtMost = number == 0 ? size_t(kj::maxValue) : number;
      return;
    default:
      parking = number % 2 == 0;
      return readAgain();
  }
}

void run(Input input) {
  Stage stage;
  stage.settle();
  while (!input.isEmpty()) {
    stage.step(input);
    stage.settle();
  }
  stage.judgeEnd();
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
