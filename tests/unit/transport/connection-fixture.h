#pragma once
// A loop with real descriptors and a clock that the test turns by hand.

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/timer.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <string>

#include "tests/unit/transport/temp-dir.h"
#include "transport/connector.h"
#include "transport/listener.h"
#include "transport/unix-socket.h"

namespace postern {

struct ConnectionFixture {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::UnixEventPort& port = io.unixEventPort;
  kj::WaitScope& scope = io.waitScope;
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  TempDir dir;

  void advance(kj::Duration time) { timer.advanceTo(timer.now() + time); }

  // Whether it resolves by what can happen now, without the clock.
  template <typename T>
  bool resolves(kj::Promise<T>& promise) {
    for (int i = 0; i < 20; ++i) {
      if (promise.poll(scope)) return true;
    }
    return false;
  }
  // The result of a promise that needs no clock; fails the test rather than waiting for ever.
  template <typename T>
  T now(kj::Promise<T> promise) {
    REQUIRE(resolves(promise));
    return promise.wait(scope);
  }

  // A raw listening socket, and a raw connected one: the programs of others.
  kj::AutoCloseFd rawListen(kj::StringPtr path, int queue = 8) {
    auto fd = newUnixSocket();
    auto address = unixAddress(path);
    KJ_SYSCALL(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(::listen(fd, queue));
    return fd;
  }
  kj::AutoCloseFd rawConnect(kj::StringPtr path) {
    auto fd = newUnixSocket();
    auto address = unixAddress(path);
    KJ_SYSCALL(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    return fd;
  }
  kj::AutoCloseFd rawAccept(int listening) {
    kj::AutoCloseFd fd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    REQUIRE(fd.get() >= 0);
    return fd;
  }
};

inline void sendAll(int fd, kj::StringPtr text) {
  REQUIRE(::send(fd, text.begin(), text.size(), MSG_NOSIGNAL) == ssize_t(text.size()));
}

// What lies there now; "" at the end, "-" when nothing.
inline kj::String receiveNow(int fd) {
  char buffer[512];
  // A thread closes what the loop has dropped.
  pollfd asked{fd, POLLIN, 0};
  ::poll(&asked, 1, 500);
  ssize_t n = ::recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
  return n < 0 ? kj::str("-") : kj::heapString(buffer, size_t(n));
}

// One line that says all of `parts`.
inline bool isLineWith(const TransportError& error, std::initializer_list<const char*> parts) {
  bool good = error.text.findFirst('\n') == nullptr;
  for (auto part : parts) good = good && strstr(error.text.cStr(), part) != nullptr;
  if (!good) MESSAGE(std::string(error.text.cStr()));
  return good;
}

template <typename Outcome>
bool failsWith(const Outcome& outcome, std::initializer_list<const char*> parts) {
  if (!outcome.template is<TransportError>()) return false;
  return isLineWith(outcome.template get<TransportError>(), parts);
}

}  // namespace postern
