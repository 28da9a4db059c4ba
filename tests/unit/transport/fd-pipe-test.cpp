#include "transport/fd-pipe.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern {
namespace {

// A pipe on one end of a socket pair; the test holds the other end raw.
struct Pair {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd peer;
  kj::Own<BytePipe> pipe;

  Pair() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    peer = kj::AutoCloseFd(fds[1]);
    pipe = newSocketPipe(io.unixEventPort, kj::AutoCloseFd(fds[0]));
  }

  void peerSends(kj::StringPtr text) {
    REQUIRE(::send(peer, text.begin(), text.size(), MSG_NOSIGNAL) == ssize_t(text.size()));
  }
  kj::String peerReads() {
    char buffer[256];
    ssize_t n = ::recv(peer, buffer, sizeof(buffer), MSG_DONTWAIT);
    return n < 0 ? kj::str("errno ", errno) : kj::heapString(buffer, size_t(n));
  }
  PipeResult read(kj::ArrayPtr<kj::byte> into) { return pipe->read(into); }
  PipeResult write(kj::ArrayPtr<const kj::byte> bytes) { return pipe->write(kj::arrayPtr(&bytes, 1)); }

  // Whether `promise` resolves when all that can happen now has happened.
  bool resolves(kj::Promise<void>& promise) {
    for (int i = 0; i < 10; ++i) {
      if (promise.poll(io.waitScope)) return true;
    }
    return false;
  }
};

bool operator==(const PipeResult& a, const PipeResult& b) {
  return a.state == b.state && a.bytes == b.bytes;
}

constexpr PipeResult NOTHING = {PipeState::OPEN, 0};
constexpr PipeResult ENDED = {PipeState::ENDED, 0};

TEST_CASE("bytes that arrive before and after the wait both wake the reader") {
  Pair pair;
  kj::byte buffer[16];
  CHECK((pair.read(buffer) == NOTHING));
  auto readable = pair.pipe->whenReadable();
  CHECK(!pair.resolves(readable));
  pair.peerSends("abc");
  readable.wait(pair.io.waitScope);
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 3}));
  CHECK(memcmp(buffer, "abc", 3) == 0);

  // The edge passes while nobody waits: turns of the loop in between must not lose it.
  CHECK((pair.read(buffer) == NOTHING));
  pair.peerSends("d");
  for (int i = 0; i < 3; ++i) kj::evalLater([] {}).wait(pair.io.waitScope);
  pair.io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(pair.io.waitScope);
  pair.pipe->whenReadable().wait(pair.io.waitScope);
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 1}));
}

TEST_CASE("a wait that was dropped does not lose the bytes of the next one") {
  Pair pair;
  kj::byte buffer[16];
  CHECK((pair.read(buffer) == NOTHING));
  { auto dropped = pair.pipe->whenReadable(); }
  pair.peerSends("x");
  pair.pipe->whenReadable().wait(pair.io.waitScope);
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 1}));
}

TEST_CASE("what lies there already is read in parts, and no part is lost") {
  Pair pair;
  pair.peerSends("abcdef");
  kj::byte buffer[4];
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 4}));
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 2}));
  CHECK((pair.read(buffer) == NOTHING));
}

TEST_CASE("the end of the peer is ENDED after the last byte, and stays so") {
  Pair pair;
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == NOTHING));
  auto readable = pair.pipe->whenReadable();
  pair.peerSends("z");
  pair.peer = nullptr;
  readable.wait(pair.io.waitScope);
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 1}));
  CHECK((pair.read(buffer) == ENDED));
  CHECK((pair.read(buffer) == ENDED));
}

TEST_CASE("writing to a peer that has gone is ENDED, not a signal, and its last words can still be read") {
  Pair pair;
  pair.peerSends("bye");
  pair.peer = nullptr;
  CHECK((pair.write(kj::StringPtr("hello").asBytes()) == ENDED));
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 3}));
  CHECK((pair.read(buffer) == ENDED));
}

TEST_CASE("a peer that dies with our bytes unread makes reads ENDED as well") {
  Pair pair;
  CHECK((pair.write(kj::StringPtr("unread").asBytes()) == PipeResult{PipeState::OPEN, 6}));
  pair.peer = nullptr;
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == ENDED));  // ECONNRESET
}

TEST_CASE("pieces go out in order, empty ones are skipped, and more than the maximum are left for the next call") {
  Pair pair;
  kj::String texts[20];
  kj::Vector<kj::ArrayPtr<const kj::byte>> pieces;
  for (unsigned i = 0; i < 20; ++i) {
    texts[i] = kj::str(char('a' + i));
    pieces.add(nullptr);
    pieces.add(texts[i].asBytes());
  }
  CHECK((pair.pipe->write(pieces) == PipeResult{PipeState::OPEN, MAX_WRITE_PIECES}));
  CHECK((pair.peerReads() == "abcdefghijklmnop"));
  kj::ArrayPtr<const kj::byte> empty;
  CHECK((pair.write(empty) == NOTHING));
  // Nothing was tried, so nothing is waited for.
  pair.pipe->whenWritable().wait(pair.io.waitScope);
}

TEST_CASE("a full pipe takes a part, then nothing, and wakes the writer when the peer has read") {
  Pair pair;
  auto block = kj::heapArray<kj::byte>(1 << 20);
  memset(block.begin(), 7, block.size());
  size_t written = 0;
  for (;;) {
    auto result = pair.write(block);
    REQUIRE(result.state == PipeState::OPEN);
    if (result.bytes == 0) break;
    written += result.bytes;
  }
  CHECK(written > 0);
  auto writable = pair.pipe->whenWritable();
  CHECK(!pair.resolves(writable));
  size_t drained = 0;
  while (drained < written) {
    ssize_t n = ::recv(pair.peer, block.begin(), block.size(), MSG_DONTWAIT);
    REQUIRE(n > 0);
    drained += size_t(n);
  }
  writable.wait(pair.io.waitScope);
  CHECK(pair.write(block).bytes > 0);
}

// Whether the event loop's next wait would be over at once.
bool loopIsWoken() {
  for (int fd = 0; fd < 1024; ++fd) {
    char target[64];
    auto size = readlink(kj::str("/proc/self/fd/", fd).cStr(), target, sizeof(target));
    if (size < 0 || kj::heapString(target, size_t(size)) != "anon_inode:[eventpoll]") continue;
    struct pollfd watched {
      fd, POLLIN, 0
    };
    if (::poll(&watched, 1, 0) == 1) return true;
  }
  return false;
}

TEST_CASE("a peer that takes what was written wakes nobody, unless the pipe has been full lately") {
  Pair pair;
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == NOTHING));
  auto readable = pair.pipe->whenReadable();
  CHECK(!pair.resolves(readable));
  auto takesOne = [&]() {
    CHECK(pair.write("x"_kj.asBytes()).bytes == 1);
    CHECK(pair.peerReads() == "x");
  };
  takesOne();
  CHECK(!loopIsWoken());

  auto before = test::settled(openDescriptors);
  auto block = kj::heapArray<kj::byte>(1 << 20);
  memset(block.begin(), 0, block.size());
  while (pair.write(block).bytes > 0) {
  }
  auto writable = pair.pipe->whenWritable();
  CHECK(!pair.resolves(writable));
  while (::recv(pair.peer, block.begin(), block.size(), MSG_DONTWAIT) > 0) {
  }
  CHECK(loopIsWoken());
  writable.wait(pair.io.waitScope);
  CHECK(test::comesTo(openDescriptors, before + 1));

  for (unsigned i = 0; i < WRITES_UNWATCHED; ++i) takesOne();
  CHECK(test::comesTo(openDescriptors, before));
  CHECK(!pair.resolves(readable));
  takesOne();
  CHECK(!loopIsWoken());
}

TEST_CASE("a lively conversation is woken by the peer's reading, and no more after a pause") {
  Pair pair;
  auto before = test::settled(openDescriptors);
  kj::byte buffer[8];
  auto hears = [&]() {
    pair.peerSends("x");
    CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 1}));
  };
  // Nothing is waiting for writing, and for reading there is nothing: what wakes the loop is the peer's reading.
  auto isWokenByPeerReading = [&]() {
    CHECK((pair.read(buffer) == NOTHING));
    CHECK(pair.write("y"_kj.asBytes()).bytes == 1);
    pair.io.waitScope.poll();  // what creating the watch has told
    CHECK(pair.write("y"_kj.asBytes()).bytes == 1);
    CHECK(pair.peerReads() == "yy");
    return loopIsWoken();
  };
  // The clock of the loop stands still while it does not run: what comes between two turns is quick.
  hears();
  for (unsigned i = 1; i < LIVELY_READS; ++i) hears();
  CHECK(!isWokenByPeerReading());
  for (unsigned i = 0; i <= LIVELY_READS; ++i) hears();
  CHECK(isWokenByPeerReading());
  CHECK(test::comesTo(openDescriptors, before + 1));

  pair.io.provider->getTimer().afterDelay(2 * QUICK_READ).wait(pair.io.waitScope);
  hears();
  CHECK(!isWokenByPeerReading());
  CHECK(test::comesTo(openDescriptors, before));
}

TEST_CASE("a limited send buffer takes less") {
  Pair pair;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd other(fds[1]);
  limitSendBuffer(fds[0], 8 << 10);
  auto pipe = newSocketPipe(pair.io.unixEventPort, kj::AutoCloseFd(fds[0]));
  auto block = kj::heapArray<kj::byte>(1 << 20);
  memset(block.begin(), 0, block.size());
  kj::ArrayPtr<const kj::byte> piece = block;
  size_t limited = pipe->write(kj::arrayPtr(&piece, 1)).bytes;
  CHECK(limited > 0);
  CHECK(limited <= 16 << 10);
  CHECK(pair.write(block).bytes > 4 * limited);
}

// T30
TEST_CASE("a descriptor that the peer attaches costs no descriptor here, and its bytes arrive") {
  Pair pair;
  size_t before = test::settled(openDescriptors);
  for (int round = 0; round < 3; ++round) {
    kj::AutoCloseFd attached(open("/dev/null", O_RDONLY | O_CLOEXEC));
    REQUIRE(attached.get() >= 0);
    char text[] = "fd";
    iovec piece = {text, 2};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    int number = attached.get();
    memcpy(CMSG_DATA(header), &number, sizeof(number));
    REQUIRE(sendmsg(pair.peer, &message, 0) == 2);
  }
  kj::byte buffer[16];
  size_t got = 0;
  while (got < 6) {
    auto result = pair.read(buffer);
    REQUIRE(result.bytes > 0);
    got += result.bytes;
  }
  CHECK(test::comesTo(openDescriptors, before));
}

TEST_CASE("close() shows at the peer at once, even when someone holds a duplicate, and wakes those who wait") {
  Pair pair;
  kj::byte buffer[8];
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd peer(fds[1]);
  kj::AutoCloseFd duplicate(dup(fds[0]));
  auto pipe = newSocketPipe(pair.io.unixEventPort, kj::AutoCloseFd(fds[0]));
  CHECK((pipe->read(buffer) == NOTHING));
  auto readable = pipe->whenReadable();
  pipe->close();
  readable.wait(pair.io.waitScope);
  CHECK((pipe->read(buffer) == ENDED));
  kj::ArrayPtr<const kj::byte> piece = kj::StringPtr("x").asBytes();
  CHECK((pipe->write(kj::arrayPtr(&piece, 1)) == ENDED));
  CHECK(::recv(peer, buffer, sizeof(buffer), MSG_DONTWAIT) == 0);
  pipe->whenReadable().wait(pair.io.waitScope);
  pipe->close();
}

TEST_CASE("destroying a pipe shows at the peer at once, even when someone holds a duplicate") {
  Pair pair;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  pair.peer = kj::AutoCloseFd(fds[1]);
  kj::AutoCloseFd duplicate(dup(fds[0]));
  pair.pipe = newSocketPipe(pair.io.unixEventPort, kj::AutoCloseFd(fds[0]));
  pair.pipe = nullptr;
  CHECK(pair.peerReads() == "");
}

TEST_CASE("destroying a pipe resolves the wait on it and frees the descriptor") {
  Pair pair;
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == NOTHING));
  auto readable = pair.pipe->whenReadable();
  size_t before = test::settled(openDescriptors);
  pair.pipe = nullptr;
  readable.wait(pair.io.waitScope);
  CHECK(test::comesTo(openDescriptors, before - 1));
}

TEST_CASE("an idle pipe does not spin: a wait without traffic costs no turn") {
  Pair pair;
  kj::byte buffer[8];
  unsigned wakeups = 0;
  while (wakeups < 100) {
    CHECK((pair.read(buffer) == NOTHING));
    auto readable = pair.pipe->whenReadable();
    if (!pair.resolves(readable)) break;
    ++wakeups;
  }
  CHECK(wakeups <= 1);
}

TEST_CASE("results of the kernel's calls mean what they mean on each kind of descriptor") {
  using enum DescriptorKind;
  CHECK((readResult(SOCKET, 0, 0) == ENDED));
  CHECK((readResult(SERIAL_DEVICE, 0, 0) == PipeResult{PipeState::NOT_CONNECTED, 0}));
  for (auto kind : {SOCKET, SERIAL_DEVICE}) {
    CHECK((readResult(kind, 5, EIO) == PipeResult{PipeState::OPEN, 5}));
    CHECK((readResult(kind, -1, EAGAIN) == NOTHING));
    for (int error : {EIO, ENODEV, ECONNRESET, EPIPE, EBADF, ENOMEM}) CHECK((readResult(kind, -1, error) == ENDED));
  }
  CHECK((writeResult(9, EIO) == PipeResult{PipeState::OPEN, 9}));
  CHECK((writeResult(0, 0) == NOTHING));
  CHECK((writeResult(-1, EAGAIN) == NOTHING));
  for (int error : {EIO, ENODEV, ECONNRESET, EPIPE, EBADF, ENOBUFS}) CHECK((writeResult(-1, error) == ENDED));
}

TEST_CASE("a serial pipe: no end at a read of 0, writes of at most 32 KiB, and it stays open when closed") {
  // A socket stands in for the device: shut down at the far end it gives reads of 0, as a port
  // without a peer does.
  Pair pair;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd peer(fds[1]);
  int number = fds[0];
  auto pipe = newSerialPipe(pair.io.unixEventPort, kj::AutoCloseFd(fds[0]));
  auto block = kj::heapArray<kj::byte>(40 << 10);
  memset(block.begin(), 1, block.size());
  kj::ArrayPtr<const kj::byte> pieces[] = {block.slice(0, 20 << 10), block.slice(0, 20 << 10)};
  CHECK((pipe->write(pieces) == PipeResult{PipeState::OPEN, MAX_SERIAL_WRITE_BYTES}));
  // All that is there comes with one call, in order and wherever the driver's buffers end.
  auto sent = kj::heapArray<kj::byte>(3 * SERIAL_BUFFER_BYTES + 100);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<kj::byte>(i * 31);
  REQUIRE(::write(peer, sent.begin(), sent.size()) == ssize_t(sent.size()));
  auto got = kj::heapArray<kj::byte>(5 * SERIAL_BUFFER_BYTES - 1);
  CHECK((pipe->read(got) == PipeResult{PipeState::OPEN, sent.size()}));
  CHECK(got.slice(0, sent.size()) == sent);
  CHECK((pipe->read(got) == NOTHING));

  KJ_SYSCALL(shutdown(peer, SHUT_WR));
  kj::byte buffer[8];
  CHECK((pipe->read(buffer) == PipeResult{PipeState::NOT_CONNECTED, 0}));
  CHECK((pipe->read(buffer) == PipeResult{PipeState::NOT_CONNECTED, 0}));
  // The first wait may be spurious; after that the state, which does not change, wakes nobody.
  pair.io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(pair.io.waitScope);
  CHECK((pipe->read(buffer) == PipeResult{PipeState::NOT_CONNECTED, 0}));
  auto readable = pipe->whenReadable();
  CHECK(!pair.resolves(readable));

  pipe->close();
  readable.wait(pair.io.waitScope);
  CHECK((pipe->read(buffer) == ENDED));
  CHECK(fcntl(number, F_GETFD) >= 0);
  pipe = nullptr;
  CHECK(test::comesTo([&] { return fcntl(number, F_GETFD); }, -1));
}

TEST_CASE("an empty read buffer is the caller's bug") {
  Pair pair;
  CHECK_THROWS_AS(pair.read(nullptr), kj::Exception);
}

TEST_CASE("another attempt during a wait ends that wait, and the next one is woken by the bytes") {
  Pair pair;
  kj::byte buffer[8];
  CHECK((pair.read(buffer) == NOTHING));
  auto first = pair.pipe->whenReadable();
  CHECK(!pair.resolves(first));
  CHECK((pair.read(buffer) == NOTHING));
  CHECK(pair.resolves(first));
  auto second = pair.pipe->whenReadable();
  CHECK(!pair.resolves(second));
  pair.peerSends("x");
  CHECK(pair.resolves(second));
  CHECK((pair.read(buffer) == PipeResult{PipeState::OPEN, 1}));
}

}  // namespace
}  // namespace postern
