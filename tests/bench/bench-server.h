#pragma once
// What the two ends of a measurement say to each other: the far end's server, the near end's client, over a session and
// over plain Cap'n Proto.

#include <capnp/rpc-twoparty.h>

#include "protocol/rpc-system.h"
#include "tests/bench/bench.capnp.h"
#include "tests/bench/peer-process.h"
#include "tests/bench/runtime.h"

namespace postern::bench {

class BenchServer final : public Bench::Server {
 public:
  explicit BenchServer(Session& session) : session(session) {}

 protected:
  kj::Promise<void> echo(EchoContext context) override;
  kj::Promise<void> drain(DrainContext context) override;

 private:
  Session& session;
};

// The far process: serves Bench as the host of a session until the guest closes it.
void serveSession(kj::AutoCloseFd socket, EnrolledPair& pair);
// The far process of a reference: serves Echo over plain Cap'n Proto until the peer hangs up.
void servePlain(kj::AutoCloseFd socket);

// The near end of a session.
class SessionClient {
 public:
  SessionClient(Runtime& runtime, kj::AutoCloseFd socket, EnrolledPair& pair);
  ~SessionClient() noexcept(false);

  kj::Own<Session> session;
  kj::Own<RpcConnection> rpc;
  Bench::Client bench;
  test::Echo::Client echo;

 private:
  Runtime& runtime;
};

// The near end of plain Cap'n Proto.
class PlainClient {
 public:
  PlainClient(Runtime& runtime, kj::AutoCloseFd socket);

 private:
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;

 public:
  test::Echo::Client echo;
};

// Sends `bytes` as fast as credit allows, then ends the channel's direction. What is in the blocks does not matter, and
// they are touched by being sealed.
kj::Promise<void> sendBulk(BulkChannel& channel, uint64_t bytes);
// Reads to the end.
kj::Promise<uint64_t> drainBulk(BulkChannel& channel, uint64_t before = 0);

// An open channel and the far end's promise to drain it.
struct BulkStream {
  kj::Own<BulkChannel> channel;
  kj::Promise<uint64_t> drained;
};
BulkStream openBulk(Session& session, Bench::Client& bench);

}  // namespace postern::bench
