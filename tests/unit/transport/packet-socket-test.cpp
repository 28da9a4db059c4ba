#include "transport/packet-socket.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/comes-to.h"

namespace postern {
namespace {

size_t openDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

struct Ends {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::AutoCloseFd one, other;
  Ends() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    one = kj::AutoCloseFd(fds[0]);
    other = kj::AutoCloseFd(fds[1]);
  }
};

// A message with so many descriptors, as a process could send it that keeps to nothing.
void sendRaw(int socket, kj::StringPtr text, unsigned count) {
  iovec piece{const_cast<char*>(text.begin()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    auto header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (unsigned i = 0; i < count; ++i) {
      int fd = 2;
      memcpy(CMSG_DATA(header) + i * sizeof(fd), &fd, sizeof(fd));
    }
  }
  KJ_SYSCALL(sendmsg(socket, &message, 0));
}

TEST_CASE("of the descriptors of a packet as many arrive as are taken, and no other stays open") {
  size_t atFirst = test::settled(openDescriptors);
  for (unsigned taken = 0; taken <= MAX_PACKET_DESCRIPTORS; ++taken) {
    for (unsigned sent : {0u, 1u, 2u, 3u, 16u}) {
      CAPTURE(taken);
      CAPTURE(sent);
      CHECK(test::comesTo(openDescriptors, atFirst));  // when the last one has gone
      Ends ends;
      // Before the socket refuses them, where it takes none.
      sendRaw(ends.other, "hello", sent);
      sendRaw(ends.other, "again", sent);
      PacketSocket socket(kj::mv(ends.one), ends.io.unixEventPort, 100, taken);
      size_t before = test::settled(openDescriptors);
      {
        auto received = socket.receive().wait(ends.io.waitScope);
        if (taken == 0 && sent > 0) {
          CHECK(received.is<PacketTooMuch>());
        } else {
          auto& packet = received.get<Packet>();
          CHECK((packet.bytes.asPtr() == kj::StringPtr("hello").asBytes()));
          CHECK(packet.fds.size() == kj::min(taken, sent));
          CHECK(test::comesTo(openDescriptors, before + packet.fds.size()));
        }
      }
      CHECK(test::comesTo(openDescriptors, before));
      kj::byte buffer[100];
      auto inBuffer = socket.receiveInto(buffer).wait(ends.io.waitScope);
      if (taken > 0 || sent == 0) {
        CHECK(inBuffer.get<PacketInBuffer>().bytes == 5);
        CHECK(inBuffer.get<PacketInBuffer>().fdsWereLost == (sent > taken));
      }
    }
  }
}

TEST_CASE("a packet that is too long leaves no descriptor open") {
  Ends ends;
  PacketSocket socket(kj::mv(ends.one), ends.io.unixEventPort, 4, 2);
  size_t before = test::settled(openDescriptors);
  sendRaw(ends.other, "hello", 2);
  CHECK(socket.receive().wait(ends.io.waitScope).is<PacketTooMuch>());
  for (int i = 0; i < 2000 && openDescriptors() > before; ++i) usleep(1000);  // a thread closes them
  CHECK(test::comesTo(openDescriptors, before));
}

TEST_CASE("what the other end does not read waits, is counted, and goes out in order with its descriptors") {
  Ends ends;
  PacketSocket from(kj::mv(ends.one), ends.io.unixEventPort, 1000, 0);
  PacketSocket to(kj::mv(ends.other), ends.io.unixEventPort, 100000, 2);
  constexpr unsigned COUNT = 20;
  for (unsigned i = 0; i < COUNT; ++i) {
    Packet packet{kj::heapArray<kj::byte>(50000)};
    memset(packet.bytes.begin(), int(i), packet.bytes.size());
    int copy;
    KJ_SYSCALL(copy = fcntl(2, F_DUPFD_CLOEXEC, 0));
    packet.fds.add(kj::AutoCloseFd(copy));
    from.send(kj::mv(packet));
  }
  CHECK(from.unsent() > 0);
  CHECK(from.unsentBytes() == from.unsent() * 50000);
  auto sent = from.whenSent().eagerlyEvaluate(nullptr);
  for (unsigned i = 0; i < COUNT; ++i) {
    auto received = to.receive().wait(ends.io.waitScope);
    auto& packet = received.get<Packet>();
    CHECK(packet.bytes.size() == 50000);
    CHECK(packet.bytes[49999] == i);
    CHECK(packet.fds.size() == 1);
  }
  sent.wait(ends.io.waitScope);
  CHECK(from.unsentBytes() == 0);
}

TEST_CASE("an end that is closed is told though what it sent lies unread") {
  Ends ends;
  PacketSocket socket(kj::mv(ends.one), ends.io.unixEventPort, 100, 0);
  sendRaw(ends.other, "last", 0);
  ends.other = nullptr;
  socket.whenGone().wait(ends.io.waitScope);
  CHECK(socket.receive().wait(ends.io.waitScope).is<Packet>());
  CHECK(socket.receive().wait(ends.io.waitScope).is<PacketsEnded>());
  // Nothing is sent to nobody, and nothing waits.
  socket.send({kj::heapArray<kj::byte>(10)});
  CHECK(socket.unsent() == 0);
}

}  // namespace
}  // namespace postern
