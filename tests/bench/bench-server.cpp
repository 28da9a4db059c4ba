#include "tests/bench/bench-server.h"

#include <kj/debug.h>

#include <algorithm>

#include "tests/support/echo.h"

namespace postern::bench {

namespace {

capnp::RpcSystem<capnp::rpc::twoparty::VatId> plainClientSystem(capnp::TwoPartyVatNetwork& network) {
  return capnp::makeRpcClient(network);
}

capnp::Capability::Client plainBootstrap(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& system) {
  capnp::MallocMessageBuilder message(4);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return system.bootstrap(vatId);
}

}  // namespace

kj::Promise<void> BenchServer::echo(EchoContext context) {
  context.getResults().setEcho(kj::heap<test::EchoServer>());
  return kj::READY_NOW;
}

kj::Promise<void> BenchServer::drain(DrainContext context) {
  auto params = context.getParams();
  auto accepted = session.bulk().accept({params.getChannel(), params.getCredit()});
  KJ_REQUIRE(accepted.is<kj::Own<BulkChannel>>(), "bad offer");
  auto channel = kj::mv(accepted.get<kj::Own<BulkChannel>>());
  auto& reference = *channel;
  return drainBulk(reference)
      .then([context](uint64_t bytes) mutable { context.getResults().setBytes(bytes); })
      .attach(kj::mv(channel));
}

void serveSession(kj::AutoCloseFd socket, EnrolledPair& pair) {
  Runtime runtime;
  auto session = runtime.connectHost(kj::mv(socket), pair).wait(runtime.io.waitScope);
  RpcConnection rpc(*session, Role::HOST, kj::heap<BenchServer>(*session), [](kj::StringPtr) {});
  auto end = session->onEnd().wait(runtime.io.waitScope);
  KJ_REQUIRE(end.reason == EndReason::CLOSED_BY_PEER, describe(end));
}

void servePlain(kj::AutoCloseFd socket) {
  Runtime runtime(POLLING_OF_KJ);
  auto stream = runtime.io.lowLevelProvider->wrapSocketFd(kj::mv(socket));
  capnp::TwoPartyVatNetwork network(*stream, capnp::rpc::twoparty::Side::SERVER);
  auto system = capnp::makeRpcServer(network, kj::heap<test::EchoServer>());
  network.onDisconnect().wait(runtime.io.waitScope);
}

SessionClient::SessionClient(Runtime& runtime, kj::AutoCloseFd socket, EnrolledPair& pair)
    : session(runtime.connectGuest(kj::mv(socket), pair).wait(runtime.io.waitScope)),
      rpc(kj::heap<RpcConnection>(*session, Role::GUEST, kj::heap<test::EchoServer>(), [](kj::StringPtr) {})),
      bench(rpc->peer().castAs<Bench>()),
      echo(bench.echoRequest().send().getEcho()),
      runtime(runtime) {}

SessionClient::~SessionClient() noexcept(false) {
  auto closed = session->close(CloseCode::GOODBYE);
  closed.wait(runtime.io.waitScope);
}

PlainClient::PlainClient(Runtime& runtime, kj::AutoCloseFd socket)
    : stream(runtime.io.lowLevelProvider->wrapSocketFd(kj::mv(socket))),
      network(*stream, capnp::rpc::twoparty::Side::CLIENT),
      system(plainClientSystem(network)),
      echo(plainBootstrap(system).castAs<test::Echo>()) {}

kj::Promise<void> sendBulk(BulkChannel& channel, uint64_t bytes) {
  while (bytes > 0) {
    size_t size = std::min<uint64_t>(channel.sendable(), bytes);
    if (size == 0) {
      return channel.whenSendable().then([&channel, bytes](bool canSend) {
        KJ_REQUIRE(canSend, "the channel ended early");
        return sendBulk(channel, bytes);
      });
    }
    channel.send(channel.newBlock(), size);
    bytes -= size;
  }
  channel.finish();
  return kj::READY_NOW;
}

kj::Promise<uint64_t> drainBulk(BulkChannel& channel, uint64_t before) {
  return channel.read().then([&channel, before](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<uint64_t> {
    KJ_SWITCH_ONEOF(next) {
      KJ_CASE_ONEOF(chunk, BulkChunk) {
        uint64_t total = before + chunk.bytes().size();
        { auto gone = kj::mv(chunk); }
        return drainBulk(channel, total);
      }
      KJ_CASE_ONEOF(end, BulkEnd) {
        KJ_REQUIRE(end == BulkEnd::FINISHED, "the channel ended early");
        return before;
      }
    }
    KJ_UNREACHABLE;
  });
}

BulkStream openBulk(Session& session, Bench::Client& bench) {
  auto opened = session.bulk().open();
  auto& channel = KJ_ASSERT_NONNULL(opened);
  auto request = bench.drainRequest();
  request.setChannel(channel.offer.channel);
  request.setCredit(channel.offer.credit);
  auto drained = request.send().then([](capnp::Response<Bench::DrainResults> response) { return response.getBytes(); });
  return {kj::mv(channel.channel), kj::mv(drained)};
}

}  // namespace postern::bench
