#pragma once
// ControlServer: posternd's socket, and Control (host/control/control.capnp) for each caller that connects to it.
//
// Who calls is what SO_PEERCRED says. Guarantees towards the daemon, whatever callers do:
//  - a user has at most MAX_CONNECTIONS_PER_USER connections, and all together MAX_CONNECTIONS, which does not hold for
//    root and posternd's own user; more are closed;
//  - a user's calls come at CALLS_PER_SECOND after a burst of CALL_BURST, one over many VMs like many; above it they
//    wait, and wait alone, and no more of them than CALLER_FLOW_WORDS a connection has room for;
//  - what a caller who has gone had asked for and not got is given up;
//  - one connection is accepted a turn of the loop;
//  - texts of a caller are bounded by the size of its messages (LocalRpc) and checked before they are used.
// One loop.

#include <kj/async-io.h>

#include "host/daemon/call-bucket.h"
#include "host/daemon/daemon.h"
#include "transport/close-elsewhere.h"

namespace postern::host {

constexpr unsigned MAX_CONNECTIONS = 512;
constexpr unsigned MAX_CONNECTIONS_PER_USER = 64;
constexpr unsigned CALLS_PER_SECOND = 200;
constexpr unsigned CALL_BURST = 400;

// Words of calls that one connection has in progress: what waits for its turn is held in memory.
constexpr uint64_t CALLER_FLOW_WORDS = uint64_t(1) << 13;

class ControlServer final : private kj::TaskSet::ErrorHandler {
 public:
  // `listening` is bound and listens, with its mode and group set. Everything outlives this.
  ControlServer(Daemon& daemon, kj::AsyncIoContext& io, kj::AutoCloseFd listening);
  ~ControlServer() noexcept(false);
  KJ_DISALLOW_COPY(ControlServer);

 private:
  struct User {
    unsigned connections = 0;
    CallBucket bucket;
    explicit User(kj::Timer& timer) : bucket(timer, CALLS_PER_SECOND, CALL_BURST) {}
  };

  Daemon& daemon;
  kj::AsyncIoContext& io;
  kj::AutoCloseFd listening;
  kj::UnixEventPort::FdObserver observer;
  unsigned connections = 0;
  kj::HashMap<uid_t, kj::Own<User>> users;
  kj::TaskSet tasks;
  kj::Promise<void> accepting;

  kj::Promise<void> acceptAll();
  void serve(StrangersFd socket);
  void leave(uid_t uid);
  void taskFailed(kj::Exception&& exception) override;
};

// The path's socket: a dead posternd's is replaced, a living one's is an error (the daemon's lock decides which it is).
kj::OneOf<kj::AutoCloseFd, FileError> listenForCallers(kj::StringPtr path, kj::Maybe<gid_t> group);

}  // namespace postern::host
