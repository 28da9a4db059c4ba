// Many relays on one session: none starves the others, and what stops costs its window and nobody else anything.
#include <doctest/doctest.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>

#include "protocol/limits.h"
#include "tests/support/sanitized.h"
#include "tests/unit/transport/relay-lab.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::test {
namespace {

constexpr size_t MIB = size_t(1) << 20;

// As many descriptors as a test of a thousand channels needs.
void allowDescriptors(rlim_t count) {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  KJ_REQUIRE(limit.rlim_max >= count, "too few descriptors", limit.rlim_max);
  limit.rlim_cur = std::max(limit.rlim_cur, count);
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
}

// Writes without end, or reads and counts.
struct Busy {
  Program& program;
  kj::ArrayPtr<kj::byte> buffer;
  uint64_t got = 0;

  kj::Promise<void> write() {
    return program.write(buffer).then([this] { return write(); });
  }
  kj::Promise<void> read() {
    return program.readSome(buffer).then([this](size_t size) {
      got += size;
      return read();
    });
  }
};

// T94
TEST_CASE("fifty busy relays share a link within a fifth") {
  constexpr size_t COUNT = 50;
  RelayLab lab;
  kj::Vector<Line> lines;
  kj::Vector<kj::Own<Busy>> readers, writers;
  kj::Vector<kj::Promise<void>> work;
  auto buffer = lab.bytes(256 << 10);
  for (size_t i = 0; i < COUNT; ++i) {
    auto& line = lines.add(lab.connect(i % 2 == 0 ? SocketKind::UNIX : SocketKind::TCP));
    auto& writer = writers.add(kj::heap(Busy{*line.hostProgram, buffer}));
    auto& reader = readers.add(kj::heap(Busy{*line.guestProgram, buffer}));
    work.add(writer->write().eagerlyEvaluate(nullptr));
    work.add(reader->read().eagerlyEvaluate(nullptr));
  }
  auto total = [&] {
    uint64_t sum = 0;
    for (auto& reader : readers) sum += reader->got;
    return sum;
  };
  auto passUntil = [&](uint64_t bytes) {
    for (int i = 0; i < 60000 && total() < bytes; ++i) lab.pass(1 * kj::MILLISECONDS);
    REQUIRE(total() >= bytes);
  };
  passUntil(COUNT * 2 * MIB);  // all windows are what they will be
  for (auto& reader : readers) reader->got = 0;
  passUntil(COUNT * (SANITIZED ? 3 : 10) * MIB);
  uint64_t least = readers[0]->got, most = least;
  for (auto& reader : readers) {
    least = std::min(least, reader->got);
    most = std::max(most, reader->got);
  }
  double mean = double(total()) / COUNT;
  CAPTURE(mean);
  CHECK(double(least) >= 0.8 * mean);
  CHECK(double(most) <= 1.2 * mean);
}

// The bytes that this process has from malloc().
size_t heapBytes() {
  auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Sends until nothing more is taken.
void fill(RelayLab& lab, kj::ArrayPtr<const int> sockets, kj::ArrayPtr<const kj::byte> content) {
  for (int quiet = 0; quiet < 5; ++quiet) {
    for (int socket : sockets) {
      while (send(socket, content.begin(), content.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) quiet = 0;
    }
    lab.pass(20 * kj::MILLISECONDS);
  }
}

// T94
TEST_CASE("a reader that stops is bounded by its window, and gets everything once it reads on") {
  RelayLab lab;
  auto line = lab.connect(SocketKind::UNIX);
  auto content = lab.bytes(8 * MIB);
  auto writing =
      line.hostProgram->write(content).then([&line] { line.hostProgram->finish(); }).eagerlyEvaluate(nullptr);
  lab.pass(300 * kj::MILLISECONDS);
  CHECK_FALSE(writing.poll(lab.waitScope));
  // One record that the relay has in its hand, and what the window has let in; two wait at the sender's end at most.
  CHECK(lab.pool.blocksOut() * BlockPool::BLOCK_BYTES <= limits::BULK_WINDOW_MAX + 4 * BlockPool::BLOCK_BYTES);
  CHECK((KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll())) == content));
  line.guestProgram->finish();
  lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
}

// T94
TEST_CASE("a thousand readers that have stopped cost 32 MB at most, and another channel nothing") {
  constexpr size_t COUNT = SANITIZED ? 100 : 1000;
  allowDescriptors(4 * COUNT + 200);
  RelayLab lab;
  auto content = lab.bytes(4 * MIB);
  auto before = heapBytes();
  size_t idle;
  {
    kj::Vector<Line> lines;
    kj::Vector<int> sockets;
    for (size_t i = 0; i < COUNT; ++i) {
      auto& line = lines.add(lab.connect(SocketKind::UNIX));
      sockets.add(line.hostProgram->descriptor());
    }
    lab.pass(100 * kj::MILLISECONDS);
    idle = heapBytes() - before;
    CHECK(lab.pool.blocksOut() == 0);
    fill(lab, sockets, content.slice(0, 65536));
    auto stopped = heapBytes() - before;
    CAPTURE(idle);
    CAPTURE(stopped);
    CAPTURE(lab.pool.blocksOut());
    // Of what all of it costs when idle, one half at most is this session's: the other is the peer's and the programs'.
    CHECK(stopped - idle / 2 <= (size_t(32) << 20));
    CHECK(lab.pool.blocksOut() > 0);

    auto other = lab.connect(SocketKind::UNIX);
    lab.exchange(other, content, content.slice(0, MIB));
    lab.expect(other, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
  }
  lab.pass(2 * kj::SECONDS);
  CHECK(lab.pool.blocksOut() == 0);
  CHECK(lab.host->bulk().openChannels() == 0);
  CHECK(lab.guest->bulk().openChannels() == 0);
}

// The same where pieces are packets that are larger than the credit.
TEST_CASE("stopped readers behind a hop hold no piece that their credit does not let in") {
  constexpr size_t COUNT = 300;
  allowDescriptors(4 * COUNT + 200);
  RelayLab lab;
  kj::Vector<kj::Own<Relay>> relays;
  kj::Vector<kj::Promise<RelayOutcome>> outcomes;
  kj::Vector<kj::Own<BulkChannel>> readers;
  kj::Vector<kj::AutoCloseFd> others;
  kj::Vector<int> sockets;
  for (size_t i = 0; i < COUNT; ++i) {
    auto hop = socketPair(SOCK_SEQPACKET);
    auto channels = lab.openChannel();
    relays.add(kj::heap<Relay>(kj::mv(channels.host), newHopEnd(lab.io.unixEventPort, kj::mv(hop.one))));
    outcomes.add(relays.back()->run().eagerlyEvaluate(nullptr));
    readers.add(kj::mv(channels.guest));  // and are never read
    sockets.add(hop.other);
    others.add(kj::mv(hop.other));
  }
  auto packet = kj::heapArray<kj::byte>(60001);
  memset(packet.begin(), 0, packet.size());
  // An odd first piece leaves credit that the next one does not fit.
  for (int socket : sockets) CHECK(send(socket, packet.begin(), 30001, MSG_DONTWAIT | MSG_NOSIGNAL) == 30001);
  fill(lab, sockets, packet);
  size_t windows = limits::BULK_WINDOWS_PER_LINK + COUNT * limits::BULK_WINDOW_SMALL;
  CHECK(lab.pool.blocksOut() * BlockPool::BLOCK_BYTES <= 2 * windows);  // a block is at least half full
  // What lies in queues, and was begun, is all there.
  size_t got = 0;
  bool finished = false;
  auto& reader = *readers[0];
  for (;;) {
    const kj::byte finish = 1;
    finished = finished || send(sockets[0], &finish, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
    auto next = lab.await(reader.read());
    if (next.is<BulkEnd>()) break;
    got += next.get<BulkChunk>().bytes().size();
  }
  CHECK(finished);
  CHECK(got >= 90000);
  CHECK(got % 60000 == 30000);
}

}  // namespace
}  // namespace postern::test
