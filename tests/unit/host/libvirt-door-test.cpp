#include "host/libvirt/door.h"

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "tests/support/temporary-folder.h"
#include "transport/unix-socket.h"

namespace postern::host {
namespace {

// A postern-libvirt that says what the test says.
struct DoorLab {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  test::TemporaryFolder folder;
  kj::String path = folder.path("libvirt.sock");
  kj::AutoCloseFd listening{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  LibvirtDoor door{io.unixEventPort, path};

  void listen() {
    auto address = unixAddress(path);
    KJ_SYSCALL(bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(::listen(listening, 4));
  }

  // The next conversation, whose request must be this.
  kj::AutoCloseFd hear(std::string request) {
    io.waitScope.poll();
    kj::AutoCloseFd socket(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    io.waitScope.poll();
    char text[64];
    auto n = recv(socket, text, sizeof(text), 0);
    CHECK((std::string(text, static_cast<size_t>(n > 0 ? n : 0)) == request + "\n"));
    return socket;
  }
};

void say(int socket, kj::StringPtr text, int passed = -1) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece = {const_cast<char*>(text.begin()), text.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    auto* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof(passed));
  }
  KJ_SYSCALL(sendmsg(socket, &message, MSG_NOSIGNAL));
}

template <typename Outcome>
std::string errorOf(Outcome outcome) {
  return outcome.template get<TransportError>().text.cStr();
}

TEST_CASE("a postern-libvirt that does not run is told, and is no domain that has ended") {
  DoorLab lab;
  auto outcome = lab.door.monitor("web1").wait(lab.io.waitScope);
  CHECK(!outcome.get<TransportError>().nobodyListens);
  CHECK((errorOf(kj::mv(outcome)).find("postern-libvirt does not run") == 0));
}

TEST_CASE("what follows the answer to monitor is left for who speaks QMP, whose process is not known") {
  DoorLab lab;
  lab.listen();
  auto promise = lab.door.monitor("web 1");
  auto socket = lab.hear("monitor web 1");
  say(socket, "OK\n{\"QMP\"");
  auto outcome = promise.wait(lab.io.waitScope);
  auto& made = outcome.get<Connection>();
  CHECK(made.peer.is<UnknownPeer>());
  char rest[16];
  CHECK(recv(made.fd, rest, sizeof(rest), 0) == 6);
}

TEST_CASE("a channel is the descriptor that comes with the answer") {
  DoorLab lab;
  lab.listen();
  auto promise = lab.door.channel("web1");
  auto socket = lab.hear("channel web1");
  int ends[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  kj::AutoCloseFd ours(ends[0]), passed(ends[1]);
  say(socket, "OK\n", passed);
  auto outcome = promise.wait(lab.io.waitScope);
  auto& made = outcome.get<Connection>();
  CHECK((made.transport == TransportKind::SERIAL));
  KJ_SYSCALL(write(ours, "x", 1));
  char byte;
  CHECK(recv(made.fd, &byte, 1, 0) == 1);
}

TEST_CASE("a context id counts until the conversation ends") {
  DoorLab lab;
  lab.listen();
  auto promise = lab.door.channel("web1");
  auto socket = lab.hear("channel web1");
  say(socket, "CID 42\n");
  auto outcome = promise.wait(lab.io.waitScope);
  auto& guest = outcome.get<LibvirtDoor::GuestCid>();
  CHECK(guest.cid == 42);
  CHECK(!guest.stopped.poll(lab.io.waitScope));
  socket = nullptr;
  guest.stopped.wait(lab.io.waitScope);
}

// T116
TEST_CASE("what is no answer is an error that quotes it, printable") {
  DoorLab lab;
  lab.listen();
  for (kj::StringPtr answer :
       {"OK\n"_kj, "CID 2\n"_kj, "CID 4294967295\n"_kj, "CID 4x\n"_kj, "CID -1\n"_kj, "\x1b[2J\n"_kj, "\n"_kj}) {
    auto promise = lab.door.channel("web1");
    auto socket = lab.hear("channel web1");
    say(socket, answer);
    auto text = errorOf(promise.wait(lab.io.waitScope));
    CHECK((text.find("postern-libvirt answered '") == 0));
    CHECK((text.find('\x1b') == std::string::npos));
  }
  auto promise = lab.door.channel("web1");
  auto socket = lab.hear("channel web1");
  say(socket, kj::str(kj::repeat('a', 600)));
  CHECK((errorOf(promise.wait(lab.io.waitScope)).find("does not end") != std::string::npos));
}

TEST_CASE("an error is told in its own words, and so is an end without an answer") {
  DoorLab lab;
  lab.listen();
  auto promise = lab.door.channel("web1");
  auto socket = lab.hear("channel web1");
  say(socket, "ERROR libvirt has no domain web1\n");
  CHECK((errorOf(promise.wait(lab.io.waitScope)) == "libvirt has no domain web1"));
  promise = lab.door.channel("web1");
  socket = lab.hear("channel web1");
  socket = nullptr;
  CHECK((errorOf(promise.wait(lab.io.waitScope)) == "postern-libvirt ended before it answered"));
}

}  // namespace
}  // namespace postern::host
