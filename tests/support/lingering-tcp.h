#pragma once
// A TCP socket whose close(2) waits, and sending it along with bytes over a Unix socket.

#include <arpa/inet.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

namespace postern::test {

// It lingers, and its peer, which does not read, is full. Who closes it goes on once the peer has gone.
struct LingeringTcp {
  kj::AutoCloseFd socket, peer;
  size_t sent = 0;

  explicit LingeringTcp(int seconds = 30) {
    kj::AutoCloseFd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct sockaddr_in address {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<struct sockaddr*>(&address);
    int small = 4096;
    KJ_SYSCALL(setsockopt(listening, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
    KJ_SYSCALL(bind(listening, generic, size));
    KJ_SYSCALL(listen(listening, 1));
    KJ_SYSCALL(getsockname(listening, generic, &size));
    socket = kj::AutoCloseFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    KJ_SYSCALL(::connect(socket, generic, size));
    peer = kj::AutoCloseFd(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    char block[1 << 14] = {};
    for (ssize_t n; (n = ::send(socket, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;) sent += size_t(n);
    struct linger waits = {1, seconds};
    KJ_SYSCALL(setsockopt(socket, SOL_SOCKET, SO_LINGER, &waits, sizeof(waits)));
  }
};

// As sendmsg(2), and the descriptor is the receiver's alone from then on.
inline ssize_t sendAlong(int unixSocket, kj::ArrayPtr<const char> bytes, kj::AutoCloseFd fd) {
  iovec piece{const_cast<char*>(bytes.begin()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  int raw = fd;
  memcpy(CMSG_DATA(header), &raw, sizeof(raw));
  return sendmsg(unixSocket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Bytes, and that socket with them. False: the kernel refuses descriptors there.
inline bool sendAlong(int unixSocket, kj::ArrayPtr<const char> bytes, LingeringTcp& lingering) {
  // Whoever closes it last waits: not here.
  bool sent = sendAlong(unixSocket, bytes, kj::AutoCloseFd(dup(lingering.socket))) == ssize_t(bytes.size());
  if (sent) lingering.socket = nullptr;
  return sent;
}

}  // namespace postern::test
