// Descriptors whose close(2) takes its time, attached to what loops read, or left unread in what they close.

#include "transport/close-elsewhere.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <vector>

#include "tests/support/lingering-tcp.h"
#include "tests/unit/transport/relay-lab.h"
#include "transport/fd-pipe.h"
#include "transport/packet-socket.h"
#include "transport/receive.h"

namespace postern::test {
namespace {

constexpr auto PROMPT = 2 * kj::SECONDS;  // LingeringTcp waits for longer
constexpr char BYTES[] = {0, 'x'};
const auto PACKET = kj::arrayPtr(BYTES, sizeof(BYTES));

kj::TimePoint now() {
  return kj::systemPreciseMonotonicClock().now();
}

// In whose queue two of them lie, each with bytes.
struct Trapped {
  LingeringTcp first, second;
  SocketPair pair;

  explicit Trapped(int type) : pair(socketPair(type)) {
    CHECK(sendAlong(pair.other, PACKET, kj::mv(first.socket)) == sizeof(BYTES));
    CHECK(sendAlong(pair.other, PACKET, kj::mv(second.socket)) == sizeof(BYTES));
  }
};

bool isEnded(int socket) {
  pollfd asked{socket, POLLIN, 0};
  return poll(&asked, 1, int(PROMPT / kj::MILLISECONDS)) == 1 && (asked.revents & POLLHUP) != 0;
}

// Reads once and goes, with the other one unread.
template <typename Reader>
void expectPrompt(int type, Reader&& reader) {
  Trapped trapped(type);
  auto io = kj::setupAsyncIo();
  auto began = now();
  reader(io, kj::mv(trapped.pair.one));
  CHECK(now() - began < PROMPT);
}

// T92
TEST_CASE("a descriptor whose close takes its time holds up no loop, whether it was read or lies unread") {
  kj::byte space[MAX_BULK_DATA_BYTES];
  SUBCASE("at a program's end") {
    expectPrompt(SOCK_STREAM, [&](kj::AsyncIoContext& io, kj::AutoCloseFd socket) {
      CHECK(newSocketEnd(io.unixEventPort, kj::mv(socket))->read(space).bytes == sizeof(BYTES));
    });
  }
  SUBCASE("at another session's end: a packet that is taken") {
    expectPrompt(SOCK_SEQPACKET, [&](kj::AsyncIoContext& io, kj::AutoCloseFd socket) {
      CHECK((newHopEnd(io.unixEventPort, kj::mv(socket))->read(space).state == RelayEnd::State::RESET));
    });
  }
  SUBCASE("at another session's end: a packet that is looked at") {
    expectPrompt(SOCK_SEQPACKET, [&](kj::AsyncIoContext& io, kj::AutoCloseFd socket) {
      auto end = newHopEnd(io.unixEventPort, kj::mv(socket));
      CHECK((end->read(kj::arrayPtr(space, 1)).state == RelayEnd::State::RESET));
    });
  }
  SUBCASE("at a link") {
    expectPrompt(SOCK_STREAM, [&](kj::AsyncIoContext& io, kj::AutoCloseFd socket) {
      CHECK(newSocketPipe(io.unixEventPort, kj::mv(socket))->read(space).bytes == sizeof(BYTES));
    });
  }
  SUBCASE("at a socket for packets without descriptors") {
    expectPrompt(SOCK_SEQPACKET, [&](kj::AsyncIoContext& io, kj::AutoCloseFd socket) {
      PacketSocket packets(kj::mv(socket), io.unixEventPort, 100, 0);
      CHECK(packets.receive().wait(io.waitScope).is<PacketTooMuch>());
    });
  }
}

// T92
TEST_CASE("closes that do not end hold up neither other sockets nor files") {
  std::vector<Trapped> trapped;
  trapped.reserve(MAX_CLOSERS);
  for (unsigned i = 0; i + 1 < MAX_CLOSERS; ++i) {
    trapped.emplace_back(SOCK_STREAM);
    closeElsewhere(kj::mv(trapped.back().pair.one));
  }
  for (int i = 0; i < 3; ++i) {
    auto other = socketPair(SOCK_STREAM);
    closeElsewhere(kj::mv(other.one));
    CHECK(isEnded(other.other));
  }
  trapped.emplace_back(SOCK_STREAM);
  closeElsewhere(kj::mv(trapped.back().pair.one));
  auto waits = socketPair(SOCK_STREAM);
  auto began = now();
  closeElsewhere(kj::mv(waits.one));
  CHECK(now() - began < PROMPT);
  int ends[2];
  KJ_SYSCALL(pipe(ends));
  kj::AutoCloseFd reading(ends[0]);
  closeElsewhere(kj::AutoCloseFd(ends[1]));
  CHECK(isEnded(reading));
  trapped.clear();
  CHECK(isEnded(waits.other));
}

TEST_CASE("a TCP socket that lingers does not when it is closed elsewhere, and what it has sent still arrives") {
  std::vector<LingeringTcp> many(MAX_CLOSERS + 1);
  for (auto& one : many) closeElsewhere(kj::mv(one.socket));
  auto other = socketPair(SOCK_STREAM);
  closeElsewhere(kj::mv(other.one));
  CHECK(isEnded(other.other));
  auto& last = many.back();
  size_t arrived = 0;
  char block[1 << 14];
  for (ssize_t n; (n = read(last.peer, block, sizeof(block))) > 0;) arrived += size_t(n);
  CHECK(arrived == last.sent);
}

TEST_CASE("a socket that refuses descriptors gets none, where the kernel knows how, and bytes as before") {
  auto pair = socketPair(SOCK_STREAM);
  refuseDescriptors(pair.one);
  bool refused = sendAlong(pair.other, PACKET, kj::AutoCloseFd(dup(2))) < 0;
  if (refused) CHECK(errno == EPERM);
  CHECK(send(pair.other, BYTES, sizeof(BYTES), 0) == sizeof(BYTES));
  kj::byte space[10];
  CHECK(receiveBytes(pair.one, space) == sizeof(BYTES));
}

TEST_CASE("of the descriptors of a message those arrive that are wanted, and it is told that there were others") {
  auto pair = socketPair(SOCK_SEQPACKET);
  CHECK(sendAlong(pair.other, PACKET, kj::AutoCloseFd(dup(2))) == sizeof(BYTES));
  CHECK(sendAlong(pair.other, PACKET, kj::AutoCloseFd(dup(2))) == sizeof(BYTES));
  kj::byte space[10];
  iovec piece{space, sizeof(space)};
  auto wanted = receive(pair.one, kj::arrayPtr(&piece, 1), 0, 1);
  CHECK(wanted.fds.size() == 1);
  CHECK_FALSE(wanted.broughtMore);
  auto unwanted = receive(pair.one, kj::arrayPtr(&piece, 1), 0, 0);
  CHECK(unwanted.fds.size() == 0);
  CHECK(unwanted.broughtMore);
}

}  // namespace
}  // namespace postern::test
