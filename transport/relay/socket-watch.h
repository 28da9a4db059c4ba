#pragma once
// SocketWatch: waits for a socket that is read and written in attempts.
//
// Guarantees: edge-triggered and armed in the very call that found nothing to do, so that an edge between that call and
// the wait is not lost; a peer that takes what we wrote wakes nobody unless the socket was full lately; one descriptor,
// whose flags are left alone; no wait is left hanging by stop(). Waits may be spurious. One loop.

#include <kj/async-unix.h>

namespace postern {

class SocketWatch {
 public:
  // No other observer of this process watches the descriptor, which stays open until stop() or the watch's end.
  SocketWatch(kj::UnixEventPort& port, int fd);
  ~SocketWatch() noexcept(false);
  KJ_DISALLOW_COPY(SocketWatch);

  // What an attempt found, in the same turn of the loop.
  void nothingToRead();
  void full();
  void tookSome();

  // At once if no attempt has failed since the last wait.
  kj::Promise<void> whenReadable();
  kj::Promise<void> whenWritable();
  // From now on: an error, or an end of both directions. One waiter.
  kj::Promise<void> whenHungUp();

  void stop();

 private:
  using Observer = kj::UnixEventPort::FdObserver;

  kj::UnixEventPort& port;
  const int fd;
  kj::Maybe<Observer> observer;
  bool watchesRoom = false;
  unsigned writesSinceFull = 0;
  kj::Maybe<kj::Promise<void>> readEdge;  // while armed
  kj::Maybe<kj::Promise<void>> writeEdge;

  void observe(Observer::Flags flags);
};

}  // namespace postern
