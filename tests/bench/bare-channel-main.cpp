// bare-channel: the programs at both ends of what compare-channel measures, and the least that a channel could cost;
// the references (README.md). Sockets are Unix sockets, by path. What is measured is printed as JSON.
//
//   bare-channel serve PATH KIND          listens for ever. KIND: `echo` sends back what comes, `greet` sends a byte to
//   who
//                                         connects, `sink` reads to the end and then says so by a byte
//   bare-channel relay PATH TARGET        a process between: what comes to PATH goes to TARGET, and back
//   bare-channel first-byte PATH COUNT    connects to a `greet`, one after the other: nanoseconds until the byte is
//   there bare-channel round-trips PATH COUNT   a byte there and back over one connection to an `echo`: nanoseconds
//   bare-channel streams PATH COUNT BYTES so many connections to a `sink` at once, so many bytes each: seconds for all
//   bare-channel share PATH COUNT MS      so many connections to a `sink` for that time: the bytes that each got rid of
//   bare-channel two-hop BLOCKS           no channel: one process seals blocks of 64 KiB, one opens and seals them
//   again, one
//                                         opens them, with a Unix socket between each two: seconds

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <map>
#include <vector>

#include <kj/io.h>

#include "tests/bench/bare-cipher.h"
#include "tests/bench/clock.h"

namespace postern::bench {

namespace {

constexpr size_t PIECE_BYTES = size_t(64) << 10;
constexpr size_t READ_BYTES = size_t(256) << 10;
constexpr int BACKLOG = 1024;

sockaddr_un addressOf(kj::StringPtr path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.size() < sizeof(address.sun_path), "too long", path);
  memcpy(address.sun_path, path.begin(), path.size());
  return address;
}

kj::AutoCloseFd newSocket(int flags = 0) {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  return kj::AutoCloseFd(fd);
}

kj::AutoCloseFd connectTo(kj::StringPtr path) {
  auto address = addressOf(path);
  auto fd = newSocket();
  KJ_SYSCALL(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), path);
  return fd;
}

kj::AutoCloseFd listenAt(kj::StringPtr path) {
  auto address = addressOf(path);
  auto fd = newSocket();
  KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), path);
  KJ_SYSCALL(listen(fd, BACKLOG));
  return fd;
}

kj::AutoCloseFd acceptFrom(int listener) {
  int fd;
  KJ_SYSCALL(fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

// Serving ----------------------------------------------------------------------------------------------------------

enum class Kind { ECHO, GREET, SINK };

// Of what came on one connection; false: it is over.
bool serveOnce(Kind kind, int fd, kj::ArrayPtr<kj::byte> space) {
  ssize_t n = read(fd, space.begin(), space.size());
  if (n > 0) {
    if (kind == Kind::ECHO) writeAll(fd, space.slice(0, static_cast<size_t>(n)));
    return true;
  }
  kj::byte done = 1;
  if (n == 0 && kind == Kind::SINK) (void)!write(fd, &done, 1);
  return false;
}

void serve(kj::StringPtr path, Kind kind) {
  auto listener = listenAt(path);
  auto space = kj::heapArray<kj::byte>(READ_BYTES);
  std::map<int, kj::AutoCloseFd> connections;
  std::vector<pollfd> waiting{{listener.get(), POLLIN, 0}};
  for (;;) {
    KJ_SYSCALL(poll(waiting.data(), waiting.size(), -1));
    for (size_t i = waiting.size(); i-- > 1;) {
      if (waiting[i].revents == 0 || serveOnce(kind, waiting[i].fd, space)) continue;
      connections.erase(waiting[i].fd);
      waiting.erase(waiting.begin() + static_cast<ptrdiff_t>(i));
    }
    if (waiting[0].revents == 0) continue;
    auto fd = acceptFrom(listener);
    kj::byte greeting = 1;
    if (kind == Kind::GREET) (void)!write(fd, &greeting, 1);
    waiting.push_back({fd.get(), POLLIN, 0});
    connections.emplace(fd.get(), kj::mv(fd));
  }
}

void relayOne(int near, int far, kj::ArrayPtr<kj::byte> space) {
  pollfd waiting[2] = {{near, POLLIN, 0}, {far, POLLIN, 0}};
  for (;;) {
    KJ_SYSCALL(poll(waiting, 2, -1));
    for (int side = 0; side < 2; ++side) {
      if (waiting[side].revents == 0) continue;
      ssize_t n = read(waiting[side].fd, space.begin(), space.size());
      if (n <= 0) return;
      writeAll(waiting[1 - side].fd, space.slice(0, static_cast<size_t>(n)));
    }
  }
}

void relay(kj::StringPtr path, kj::StringPtr target) {
  auto listener = listenAt(path);
  auto space = kj::heapArray<kj::byte>(READ_BYTES);
  for (;;) {
    auto near = acceptFrom(listener);
    relayOne(near, connectTo(target), space);
  }
}

// Measuring --------------------------------------------------------------------------------------------------------

void printQuantiles(std::vector<uint64_t> taken) {
  std::sort(taken.begin(), taken.end());
  printf("{\"p50\": %llu, \"p99\": %llu}\n", static_cast<unsigned long long>(taken[taken.size() / 2]),
         static_cast<unsigned long long>(taken[taken.size() * 99 / 100]));
}

uint64_t nanoseconds() {
  return static_cast<uint64_t>(wallSeconds() * 1e9);
}

void measureFirstByte(kj::StringPtr path, uint64_t count) {
  std::vector<uint64_t> taken;
  kj::byte byte[1];
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t began = nanoseconds();
    auto fd = connectTo(path);
    readAll(fd, byte);
    taken.push_back(nanoseconds() - began);
  }
  printQuantiles(kj::mv(taken));
}

void measureRoundTrips(kj::StringPtr path, uint64_t count) {
  auto fd = connectTo(path);
  kj::byte byte[1] = {7};
  std::vector<uint64_t> taken;
  for (uint64_t i = 0; i < count + count / 10; ++i) {
    uint64_t began = nanoseconds();
    writeAll(fd, byte);
    readAll(fd, byte);
    if (i >= count / 10) taken.push_back(nanoseconds() - began);  // the first are a warm-up
  }
  printQuantiles(kj::mv(taken));
}

// Connections of this process that write as fast as each lets them, a piece by turns.
class Senders {
 public:
  Senders(kj::StringPtr path, size_t count, uint64_t most) : most(most), sent(count, 0) {
    for (size_t i = 0; i < count; ++i) {
      connections.push_back(connectTo(path));
      waiting.push_back({connections.back().get(), POLLOUT, 0});
    }
  }

  bool isOver() const { return finished == sent.size(); }
  void turn(int milliseconds) {
    int ready;
    KJ_SYSCALL(ready = poll(waiting.data(), waiting.size(), milliseconds));
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].revents != 0) write(i);
    }
  }
  // Until the far ends have everything.
  void awaitEnds() {
    kj::byte byte[1];
    for (auto& connection : connections) readAll(connection, byte);
  }
  const std::vector<uint64_t>& bytes() const { return sent; }

 private:
  const uint64_t most;
  std::vector<kj::AutoCloseFd> connections;
  std::vector<pollfd> waiting;
  std::vector<uint64_t> sent;
  size_t finished = 0;
  const kj::Array<kj::byte> piece = kj::heapArray<kj::byte>(PIECE_BYTES);

  void write(size_t i) {
    size_t size = std::min<uint64_t>(PIECE_BYTES, most - sent[i]);
    ssize_t n = send(waiting[i].fd, piece.begin(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    KJ_REQUIRE(n > 0, "a stream was cut", strerror(errno));
    sent[i] += static_cast<uint64_t>(n);
    if (sent[i] < most) return;
    shutdown(waiting[i].fd, SHUT_WR);
    waiting[i].fd = -1;
    ++finished;
  }
};

void measureStreams(kj::StringPtr path, uint64_t count, uint64_t bytes) {
  Senders senders(path, count, bytes);
  double began = wallSeconds();
  while (!senders.isOver()) senders.turn(-1);
  senders.awaitEnds();
  printf("{\"seconds\": %.6f}\n", wallSeconds() - began);
}

void measureShares(kj::StringPtr path, uint64_t count, uint64_t milliseconds) {
  Senders senders(path, count, ~uint64_t(0));
  double end = wallSeconds() + static_cast<double>(milliseconds) * 1e-3;
  while (wallSeconds() < end) senders.turn(100);
  printf("[");
  for (size_t i = 0; i < count; ++i) {
    printf("%s%llu", i == 0 ? "" : ", ", static_cast<unsigned long long>(senders.bytes()[i]));
  }
  printf("]\n");
}

// The least ----------------------------------------------------------------------------------------------------------

template <typename Work>
pid_t inChild(Work&& work) {
  pid_t child;
  KJ_SYSCALL(child = fork());
  if (child == 0) {
    work();
    _exit(0);
  }
  return child;
}

struct SocketPair {
  kj::AutoCloseFd in, out;
  SocketPair() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    in = kj::AutoCloseFd(fds[0]);
    out = kj::AutoCloseFd(fds[1]);
  }
};

void sealTo(int to, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    cipher.seal();
    writeAll(to, cipher.sealed());
  }
}

void openAndPass(int from, int to, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(from, cipher.sealed());
    cipher.open();
    writeAll(to, cipher.plain());
  }
}

void sealAndPass(int from, int to, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(from, cipher.plain());
    cipher.seal();
    writeAll(to, cipher.sealed());
  }
}

void openFrom(int from, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(from, cipher.sealed());
    cipher.open();
  }
}

void twoHops(uint64_t blocks) {
  SocketPair first, between, second;
  double began = wallSeconds();
  pid_t children[] = {inChild([&]() { sealTo(first.in, blocks); }),
                      inChild([&]() { openAndPass(first.out, between.in, blocks); }),
                      inChild([&]() { sealAndPass(between.out, second.in, blocks); })};
  openFrom(second.out, blocks);
  double seconds = wallSeconds() - began;
  for (pid_t child : children) {
    int how;
    KJ_SYSCALL(waitpid(child, &how, 0));
    KJ_REQUIRE(how == 0, "a process failed");
  }
  printf("{\"seconds\": %.6f}\n", seconds);
}

kj::Maybe<Kind> kindOf(kj::StringPtr word) {
  if (word == "echo") return Kind::ECHO;
  if (word == "greet") return Kind::GREET;
  if (word == "sink") return Kind::SINK;
  return nullptr;
}

bool run(kj::ArrayPtr<char*> words) {
  auto number = [&](size_t i) { return kj::StringPtr(words[i]).parseAs<uint64_t>(); };
  kj::StringPtr what = words.size() > 1 ? words[1] : "";
  KJ_REQUIRE(sodium_init() >= 0);  // which also chooses its fastest code
  if (what == "serve" && words.size() == 4) {
    KJ_IF_MAYBE (kind, kindOf(words[3])) {
      serve(words[2], *kind);
      return true;
    }
    return false;
  }
  if (what == "relay" && words.size() == 4) return relay(words[2], words[3]), true;
  if (what == "first-byte" && words.size() == 4) return measureFirstByte(words[2], number(3)), true;
  if (what == "round-trips" && words.size() == 4) return measureRoundTrips(words[2], number(3)), true;
  if (what == "streams" && words.size() == 5) return measureStreams(words[2], number(3), number(4)), true;
  if (what == "share" && words.size() == 5) return measureShares(words[2], number(3), number(4)), true;
  if (what == "two-hop" && words.size() == 3) return twoHops(number(2)), true;
  return false;
}

}  // namespace

}  // namespace postern::bench

int main(int count, char** words) {
  signal(SIGPIPE, SIG_IGN);
  bool known = false;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                 known = postern::bench::run(kj::arrayPtr(words, static_cast<size_t>(count)));
               })) {
    fprintf(stderr, "bare-channel: %s\n", exception->getDescription().cStr());
    return 1;
  }
  if (!known) fputs("usage: see tests/bench/bare-channel-main.cpp\n", stderr);
  return known ? 0 : 2;
}
