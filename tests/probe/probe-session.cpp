#include "tests/probe/probe-session.h"

#include <kj/debug.h>
#include <sodium.h>

namespace postern::test {

namespace {

kj::Promise<void> echoBack(BulkChannel& channel) {
  return channel.read().then([&channel](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
    if (next.is<BulkEnd>()) {
      channel.finish();
      return kj::READY_NOW;
    }
    auto chunk = kj::heap(kj::mv(next.get<BulkChunk>()));
    auto bytes = chunk->bytes();
    return channel.write(bytes).attach(kj::mv(chunk)).then([&channel](bool) { return echoBack(channel); });
  });
}

kj::Promise<void> compare(BulkChannel& channel, kj::ArrayPtr<const kj::byte> expected) {
  return channel.read().then([&channel, expected](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
    if (next.is<BulkEnd>()) {
      KJ_REQUIRE(next.get<BulkEnd>() == BulkEnd::FINISHED && expected.size() == 0, "bulk bytes ended early");
      return kj::READY_NOW;
    }
    auto bytes = next.get<BulkChunk>().bytes();
    KJ_REQUIRE(bytes.size() <= expected.size() && bytes == expected.slice(0, bytes.size()), "WRONG BYTES");
    return compare(channel, expected.slice(bytes.size(), expected.size()));
  });
}

kj::Promise<void> pings(Probe::Client peer, uint64_t base, unsigned count) {
  if (count == 0) return kj::READY_NOW;
  auto request = peer.pingRequest();
  request.setNumber(base + count);
  return request.send().then([peer, base, count](auto response) mutable {
    KJ_REQUIRE(response.getNumber() == base + count, "WRONG ANSWER");
    return pings(peer, base, count - 1);
  });
}

}  // namespace

kj::Promise<void> ProbeServer::ping(PingContext context) {
  context.getResults().setNumber(context.getParams().getNumber());
  return kj::READY_NOW;
}

kj::Promise<void> ProbeServer::echoBulk(EchoBulkContext context) {
  auto params = context.getParams();
  auto accepted = session.bulk().accept({params.getChannel(), params.getCredit()});
  KJ_REQUIRE(accepted.is<kj::Own<BulkChannel>>(), "offer refused");
  auto channel = kj::mv(accepted.get<kj::Own<BulkChannel>>());
  auto& reference = *channel;
  return echoBack(reference).attach(kj::mv(channel));
}

kj::Promise<void> probeRound(Session& session, Probe::Client peer, Random& random, size_t bytes) {
  Secret<32> seed;
  random.fill(seed.asPtr());
  auto sent = kj::heapArray<kj::byte>(bytes);
  randombytes_buf_deterministic(sent.begin(), sent.size(), seed.begin());
  uint64_t base = 0;
  random.fill(kj::arrayPtr(&base, 1).asBytes());

  return pings(peer, base >> 1, 5).then([&session, peer, sent = kj::mv(sent)]() mutable {
    auto opened = KJ_REQUIRE_NONNULL(session.bulk().open());
    auto request = peer.echoBulkRequest();
    request.setChannel(opened.offer.channel);
    request.setCredit(opened.offer.credit);
    auto call = request.send().ignoreResult();
    auto& channel = *opened.channel;
    // Eagerly: joinPromises() runs a last continuation only when all the others are there.
    auto writing = channel.write(sent)
                       .then([&channel](bool all) {
                         KJ_REQUIRE(all, "bulk bytes were not taken");
                         channel.finish();
                       })
                       .eagerlyEvaluate(nullptr);
    auto all = kj::heapArrayBuilder<kj::Promise<void>>(3);
    all.add(kj::mv(call));
    all.add(kj::mv(writing));
    all.add(compare(channel, sent));
    return kj::joinPromises(all.finish()).attach(kj::mv(opened.channel), kj::mv(sent));
  });
}

}  // namespace postern::test
