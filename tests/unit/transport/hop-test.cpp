// The way between two session processes, with the other process in the test's hand: what it may say, and what it must
// not.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tests/support/comes-to.h"
#include "tests/support/lingering-tcp.h"
#include "tests/unit/transport/relay-lab.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::test {
namespace {

using State = RelayEnd::State;

std::string packetOf(char kind, size_t bytes, char fill = 'x') {
  return std::string(1, kind) + std::string(bytes, fill);
}

struct HopLab {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  SocketPair pair = socketPair(SOCK_SEQPACKET);
  kj::Own<RelayEnd> end = newHopEnd(io.unixEventPort, kj::mv(pair.one));
  kj::Array<kj::byte> space = kj::heapArray<kj::byte>(MAX_BULK_DATA_BYTES);

  void send(const std::string& packet) {
    CHECK(::send(pair.other, packet.data(), packet.size(), MSG_NOSIGNAL) == ssize_t(packet.size()));
  }
  // The next packet; "end" at the end, "nothing" while there is none.
  std::string next() {
    std::string packet(MAX_BULK_DATA_BYTES + 10, 0);
    ssize_t got = recv(pair.other, packet.data(), packet.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN ? "nothing" : "reset";
    if (got == 0) return "end";
    packet.resize(size_t(got));
    return packet;
  }
  std::string read(size_t room = MAX_BULK_DATA_BYTES) {
    auto result = end->read(space.slice(0, room));
    if (result.state == State::RESET) return "reset";
    if (result.state == State::FINISHED) return "finished";
    return std::string(reinterpret_cast<char*>(space.begin()), result.bytes);
  }
  RelayEnd::Result write(const std::string& text) {
    return end->write(kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
  }
  void await(kj::Promise<void> promise) {
    io.provider->getTimer().timeoutAfter(30 * kj::SECONDS, kj::mv(promise)).wait(io.waitScope);
  }
  bool isPending(kj::Promise<void>& promise) {
    io.provider->getTimer().afterDelay(20 * kj::MILLISECONDS).wait(io.waitScope);
    return !promise.poll(io.waitScope);
  }
};

// T95
TEST_CASE("what a hop sends and takes is bytes, then the end of each way, a packet each") {
  HopLab lab;
  CHECK(lab.read() == "");
  CHECK(lab.write("hello").bytes == 5);
  CHECK(lab.next() == std::string("\0hello", 6));
  lab.send(std::string("\0world", 6));
  lab.await(lab.end->whenReadable());
  CHECK(lab.read() == "world");
  lab.send(packetOf(0, MAX_BULK_DATA_BYTES));
  CHECK(lab.read() == std::string(MAX_BULK_DATA_BYTES, 'x'));
  CHECK(lab.read() == "");

  auto reset = lab.end->whenReset();
  lab.send("\1");
  CHECK(lab.read() == "finished");
  CHECK(lab.read() == "finished");
  CHECK(lab.write("still").bytes == 5);
  lab.end->finish();
  lab.end->finish();
  lab.await(lab.end->whenWritable());
  CHECK(lab.isPending(reset));
  lab.end = nullptr;
  CHECK(lab.next() == std::string("\0still", 6));
  CHECK(lab.next() == "\1");
  CHECK(comesTo([&] { return lab.next(); }, std::string("end")));
}

// T95
TEST_CASE("a packet that has no room is taken in parts, exact, and what is behind it waits") {
  HopLab lab;
  for (size_t room : {size_t(1), size_t(7), size_t(4096), size_t(8128), MAX_BULK_DATA_BYTES - 1}) {
    std::string content(room < 8 ? 1000 : MAX_BULK_DATA_BYTES, 0);
    for (size_t i = 0; i < content.size(); ++i) content[i] = char(i * 31 + i / 251);
    lab.send(std::string(1, 0) + content);
    lab.send(packetOf(0, 3, 'y'));
    std::string got;
    while (got.size() < content.size()) {
      auto part = lab.read(room);
      REQUIRE(part.size() <= room);
      REQUIRE(part.size() > 0);
      got += part;
    }
    CHECK((got == content));
    CHECK(lab.read() == "yyy");
    CHECK(lab.read(room) == "");
  }
}

// T95
TEST_CASE("a packet that breaks a rule is a reset, in whatever room it is read, and so is everything after it") {
  struct {
    const char* what;
    std::string packet;
  } hostile[] = {{"empty", ""},
                 {"of an unknown kind", packetOf(3, 5)},
                 {"of the last kind", packetOf(char(255), 0)},
                 {"bytes without any", packetOf(0, 0)},
                 {"too long by one", packetOf(0, MAX_BULK_DATA_BYTES + 1)},
                 {"too long by far", packetOf(0, 120000)},
                 {"finished, with bytes", packetOf(1, 1)},
                 {"reset", packetOf(2, 0)},
                 {"reset, with bytes", packetOf(2, 100)}};
  for (auto& one : hostile) {
    for (size_t room : {size_t(1), size_t(5000), MAX_BULK_DATA_BYTES}) {
      CAPTURE(one.what);
      CAPTURE(room);
      HopLab lab;
      lab.send(one.packet);
      lab.send(packetOf(0, 1));
      CHECK(lab.read(room) == "reset");
      CHECK(lab.read(room) == "reset");
      CHECK(lab.write("x").state == State::RESET);
      lab.await(lab.end->whenReset());
      lab.await(lab.end->whenReadable());
      lab.await(lab.end->whenWritable());
      auto said = lab.next();
      CHECK((said == "\2" || said == "reset"));  // the kernel says it, for what lay unread
    }
  }
}

// T95
TEST_CASE("anything behind the other's end is a reset, unless both have ended") {
  for (auto& behind : {packetOf(0, 5), packetOf(1, 0), packetOf(2, 0), std::string()}) {
    HopLab lab;
    lab.send("\1");
    CHECK(lab.read() == "finished");
    lab.send(behind);
    lab.await(lab.end->whenReadable());
    CHECK(lab.read() == "reset");
  }
}

TEST_CASE("descriptors that come along are a reset, and none stays open") {
  for (size_t room : {size_t(100), MAX_BULK_DATA_BYTES}) {
    auto io = kj::setupAsyncIo();
    auto pair = socketPair(SOCK_SEQPACKET);
    // Before the end refuses them.
    CHECK(sendAlong(pair.other, kj::arrayPtr("\0hello", 6), kj::AutoCloseFd(dup(2))) == 6);
    auto end = newHopEnd(io.unixEventPort, kj::mv(pair.one));
    auto before = settled(openDescriptors);
    auto space = kj::heapArray<kj::byte>(room);
    CHECK((end->read(space).state == State::RESET));
    CHECK(comesTo(openDescriptors, before - 1));  // the hop's own
  }
}

// T97
TEST_CASE("an end without a word is a reset: the other process has gone, or posternd has cut") {
  enum How { CLOSED, CUT_HERE, CUT_THERE };
  for (auto how : {CLOSED, CUT_HERE, CUT_THERE}) {
    for (bool otherFinished : {false, true}) {
      CAPTURE(int(how));
      CAPTURE(otherFinished);
      HopLab lab;
      lab.pair = socketPair(SOCK_SEQPACKET);
      int copy;
      KJ_SYSCALL(copy = fcntl(how == CUT_THERE ? lab.pair.other : lab.pair.one, F_DUPFD_CLOEXEC, 0));
      kj::AutoCloseFd duplicate(copy);
      lab.end = newHopEnd(lab.io.unixEventPort, kj::mv(lab.pair.one));
      if (otherFinished) {
        lab.send("\1");
        CHECK(lab.read() == "finished");
      } else {
        CHECK(lab.read() == "");
      }
      auto reset = lab.end->whenReset();
      auto readable = lab.end->whenReadable();
      CHECK(lab.isPending(reset));
      if (how == CLOSED) {
        lab.pair.other = nullptr;
      } else {
        cutSocket(duplicate);
      }
      lab.await(kj::mv(reset));
      lab.await(kj::mv(readable));
      CHECK(lab.read() == "reset");
      if (how != CLOSED) CHECK(comesTo([&] { return lab.next(); }, std::string("end")));
    }
  }
}

TEST_CASE("a reset tells the other process, also beside a duplicate; an end that is dropped does the same") {
  for (bool dropped : {false, true}) {
    HopLab lab;
    lab.pair = socketPair(SOCK_SEQPACKET);
    int copy;
    KJ_SYSCALL(copy = fcntl(lab.pair.one, F_DUPFD_CLOEXEC, 0));
    kj::AutoCloseFd duplicate(copy);
    lab.end = newHopEnd(lab.io.unixEventPort, kj::mv(lab.pair.one));
    CHECK(lab.write("last").bytes == 4);
    lab.end->finish();  // one way is not both
    if (dropped) {
      lab.end = nullptr;
    } else {
      lab.end->reset();
      lab.end->reset();
    }
    CHECK(lab.next() == std::string("\0last", 5));
    CHECK(lab.next() == "\1");
    CHECK(lab.next() == "\2");
    CHECK(comesTo([&] { return lab.next(); }, std::string("end")));
  }
}

TEST_CASE("a full hop says so, and goes on when the other has read; its end is told behind all bytes") {
  HopLab lab;
  std::string piece(30000, 'p');
  size_t sent = 0;
  for (;;) {
    auto result = lab.write(piece);
    REQUIRE(result.state == State::OPEN);
    if (result.bytes == 0) break;
    CHECK(result.bytes == piece.size());
    ++sent;
  }
  CHECK(sent > 1);
  CHECK(sent < 100);
  auto writable = lab.end->whenWritable();
  CHECK(lab.isPending(writable));
  CHECK(lab.next().size() == piece.size() + 1);
  while (lab.next() != "nothing") --sent;
  CHECK(sent == 1);
  lab.await(kj::mv(writable));
  while (lab.write(piece).bytes > 0) ++sent;

  lab.end->finish();
  auto told = lab.end->whenWritable();
  CHECK(lab.isPending(told));
  std::string got;
  while ((got = lab.next()) != "\1") {
    if (got == "nothing") lab.io.provider->getTimer().afterDelay(5 * kj::MILLISECONDS).wait(lab.io.waitScope);
  }
  lab.await(kj::mv(told));
}

TEST_CASE("a reset ends the wait of an end that could not yet be told") {
  HopLab lab;
  while (lab.write(std::string(30000, 'p')).bytes > 0) continue;
  lab.end->finish();
  auto waiting = lab.end->whenWritable();
  CHECK(lab.isPending(waiting));
  lab.end->reset();
  lab.await(kj::mv(waiting));
}

// T95
TEST_CASE("two relays joined by a hop bring every byte, both ends, and a reset") {
  RelayLab lab;
  for (bool reset : {false, true}) {
    auto hop = socketPair(SOCK_SEQPACKET);
    auto near = connectedSockets(SocketKind::TCP), far = connectedSockets(SocketKind::TCP);
    Program caller(lab.io, kj::mv(near.other)), service(lab.io, kj::mv(far.other));
    auto one = lab.openChannel(), two = lab.openChannel();
    auto& port = lab.io.unixEventPort;
    kj::Own<Relay> relays[] = {kj::heap<Relay>(kj::mv(one.guest), newSocketEnd(port, kj::mv(near.one))),
                               kj::heap<Relay>(kj::mv(one.host), newHopEnd(port, kj::mv(hop.one))),
                               kj::heap<Relay>(kj::mv(two.host), newHopEnd(port, kj::mv(hop.other))),
                               kj::heap<Relay>(kj::mv(two.guest), newSocketEnd(port, kj::mv(far.one)))};
    kj::Vector<kj::Promise<RelayOutcome>> outcomes;
    for (auto& relay : relays) outcomes.add(relay->run().eagerlyEvaluate(nullptr));
    auto there = lab.bytes(5 << 20), back = lab.bytes(3 << 20);
    auto asking = caller.write(there).then([&] { caller.finish(); }).eagerlyEvaluate(nullptr);
    CHECK((KJ_REQUIRE_NONNULL(lab.await(service.readAll())) == there));
    if (reset) {
      service.reset();
      CHECK(lab.await(caller.readAll()) == nullptr);
    } else {
      auto answering = service.write(back).then([&] { service.finish(); }).eagerlyEvaluate(nullptr);
      CHECK((KJ_REQUIRE_NONNULL(lab.await(caller.readAll())) == back));
    }
    for (auto& outcome : outcomes) {
      CHECK(lab.await(kj::mv(outcome)) == (reset ? RelayOutcome::RESET : RelayOutcome::FINISHED));
    }
  }
}

// T95
TEST_CASE("a relay whose other way is idle hears of what must not be behind an end") {
  RelayLab lab;
  auto hop = socketPair(SOCK_SEQPACKET);
  auto channels = lab.openChannel();
  Relay relay(kj::mv(channels.host), newHopEnd(lab.io.unixEventPort, kj::mv(hop.one)));
  auto outcome = relay.run().eagerlyEvaluate(nullptr);
  CHECK(send(hop.other, "\1", 1, MSG_NOSIGNAL) == 1);
  CHECK(lab.await(channels.guest->read()).get<BulkEnd>() == BulkEnd::FINISHED);
  lab.pass();
  CHECK_FALSE(outcome.poll(lab.waitScope));
  CHECK(send(hop.other, "\0more", 5, MSG_NOSIGNAL) == 5);
  CHECK(lab.await(kj::mv(outcome)) == RelayOutcome::RESET);
  CHECK(lab.await(channels.guest->whenBroken()) == BulkEnd::RESET);
}

// T97
TEST_CASE("a session process that is killed resets the relay at the other end of the hop") {
  RelayLab lab;
  auto hop = socketPair(SOCK_SEQPACKET);
  pid_t pid = fork();
  if (pid == 0) {
    // Has the socket, says nothing, and dies.
    hop.one = nullptr;
    for (;;) pause();
  }
  hop.other = nullptr;
  auto channels = lab.openChannel();
  Relay relay(kj::mv(channels.host), newHopEnd(lab.io.unixEventPort, kj::mv(hop.one)));
  auto outcome = relay.run().eagerlyEvaluate(nullptr);
  lab.pass();
  CHECK_FALSE(outcome.poll(lab.waitScope));
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, nullptr, 0) == pid);
  CHECK(lab.await(kj::mv(outcome)) == RelayOutcome::RESET);
  CHECK(lab.await(channels.guest->read()).get<BulkEnd>() == BulkEnd::RESET);
}

}  // namespace
}  // namespace postern::test
