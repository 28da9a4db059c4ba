#pragma once
// TcpPair: the two ends of a TCP connection over the loopback.

#include <arpa/inet.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace postern::test {

struct TcpPair {
  kj::AutoCloseFd ours, theirs;

  TcpPair() {
    kj::AutoCloseFd listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct sockaddr_in address {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<struct sockaddr*>(&address);
    KJ_SYSCALL(bind(listening, generic, size));
    KJ_SYSCALL(listen(listening, 1));
    KJ_SYSCALL(getsockname(listening, generic, &size));
    ours = kj::AutoCloseFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    KJ_SYSCALL(::connect(ours, generic, size));
    theirs = kj::AutoCloseFd(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  }
  // Ours sends no more.
  void finish() { shutdown(ours, SHUT_WR); }
};

}  // namespace postern::test
