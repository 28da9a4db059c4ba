#pragma once
// AcceptQueue: the Listener over a listening socket of any family. What differs comes in as `Examine`.

#include <kj/function.h>

#include "transport/listener.h"

namespace postern {

// What errno of a failed accept asks for.
enum class AcceptFailure {
  NOTHING,   // the queue is empty
  TRY_NEXT,  // that one connection is gone
  PAUSE,     // this process or the system lacks something: later
  OUR_BUG,   // the descriptor is not a listening socket
};
AcceptFailure classifyAcceptFailure(int error);

// Connections that wait in the kernel. Those above the half-open limit wait here, so it is twice that. Not more, since
// a connection in a queue can hold a socket buffer full of bytes.
constexpr int LISTEN_QUEUE = 128;

class AcceptQueue final : public Listener {
 public:
  // Makes a connection of an accepted descriptor; null refuses the peer, and the descriptor is closed.
  using Examine = kj::Function<kj::Maybe<Connection>(StrangersFd)>;

  // `socket` listens already and is non-blocking. `attached` is destroyed after the socket.
  AcceptQueue(kj::UnixEventPort& port, kj::Timer& timer, kj::AutoCloseFd socket, Examine examine,
              kj::Own<void> attached);

  kj::Promise<void> whenPending() override;
  kj::Maybe<Connection> tryAccept() override;
  ListenerCounters counters() const override { return counted; }

 private:
  kj::Timer& timer;
  kj::Own<void> attached;
  kj::AutoCloseFd socket;
  kj::UnixEventPort::FdObserver observer;
  Examine examine;
  ListenerCounters counted;
  kj::TimePoint pausedUntil;
};

}  // namespace postern
