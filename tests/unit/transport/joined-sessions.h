#pragma once
// JoinedSessions: a host's and a guest's real session on one loop, joined by a socket pair, with the system's clock.

#include <kj/async-io.h>
#include <kj/io.h>

#include "protocol/read-scratch.h"
#include "protocol/session.h"
#include "tests/support/test-random.h"

namespace postern::test {

// Non-blocking.
struct SocketPair {
  kj::AutoCloseFd one, other;
};
SocketPair socketPair(int type);

class JoinedSessions {
 public:
  JoinedSessions();

  kj::AsyncIoContext io;
  kj::WaitScope& waitScope;
  TestRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  kj::Own<Session> host, guest;

  // Opened by the host.
  struct Channels {
    kj::Own<BulkChannel> host, guest;
  };
  Channels openChannel();

  template <typename T>
  T await(kj::Promise<T>&& promise) {
    auto late =
        io.provider->getTimer().afterDelay(60 * kj::SECONDS).then([]() -> T { KJ_FAIL_ASSERT("waited in vain"); });
    return promise.exclusiveJoin(kj::mv(late)).wait(waitScope);
  }
  // Turns the loop.
  void pass(kj::Duration time = 20 * kj::MILLISECONDS) { io.provider->getTimer().afterDelay(time).wait(waitScope); }
};

}  // namespace postern::test
