#pragma once
// What the two ends of a probe do inside a session. The guest answers; the host asks, compares every byte, and prints a
// line for each round. Every round's bytes come from a random number of that round, so that a byte of another session
// or round cannot pass for the right one.

#include "protocol/rpc-system.h"
#include "protocol/session.h"
#include "tests/support/echo.h"

namespace postern::test {

class ProbeServer final : public Probe::Server {
 public:
  explicit ProbeServer(Session& session) : session(session) {}

 protected:
  kj::Promise<void> ping(PingContext context) override;
  kj::Promise<void> echoBulk(EchoBulkContext context) override;

 private:
  Session& session;
};

// One round: pings, then `bytes` there and back over a bulk channel. Throws when the session ends or a byte is wrong.
kj::Promise<void> probeRound(Session& session, Probe::Client peer, Random& random, size_t bytes);

}  // namespace postern::test
