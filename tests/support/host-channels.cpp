#include "tests/support/host-channels.h"

#include <kj/debug.h>

namespace postern::test {

namespace {

kj::Promise<void> echoAll(BulkChannel& channel) {
  return channel.read().then([&channel](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<void> {
    KJ_IF_MAYBE (chunk, got.tryGet<BulkChunk>()) {
      auto bytes = kj::heapArray(chunk->bytes());
      auto writing = channel.write(bytes).ignoreResult();
      return writing.attach(kj::mv(bytes)).then([&channel]() { return echoAll(channel); });
    }
    if (got.get<BulkEnd>() == BulkEnd::FINISHED) channel.finish();
    return kj::READY_NOW;
  });
}

kj::Promise<Heard> hearInto(BulkChannel& channel, kj::Vector<char>& text, size_t bytes) {
  if (text.size() >= bytes) return Heard{kj::heapString(text.asPtr()), nullptr};
  return channel.read().then([&channel, &text, bytes](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<Heard> {
    KJ_IF_MAYBE (chunk, got.tryGet<BulkChunk>()) {
      text.addAll(chunk->bytes().asChars());
      return hearInto(channel, text, bytes);
    }
    return Heard{kj::heapString(text.asPtr()), got.get<BulkEnd>()};
  });
}

}  // namespace

kj::Promise<void> echo(kj::Own<BulkChannel> channel) {
  auto all = echoAll(*channel);
  return all.attach(kj::mv(channel));
}

kj::Promise<Heard> hear(BulkChannel& channel, size_t bytes) {
  auto text = kj::heap<kj::Vector<char>>();
  auto hearing = hearInto(channel, *text, bytes);
  return hearing.attach(kj::mv(text));
}

kj::Promise<Reached> reach(Session& session, schema::GuestCalls::Client calls, kj::StringPtr service) {
  auto opened = KJ_REQUIRE_NONNULL(session.bulk().open());
  auto request = calls.connectRequest();
  request.setService(service);
  request.setChannel(opened.offer.channel);
  request.setCredit(opened.offer.credit);
  return request.send().then(
      [channel = kj::mv(opened.channel)](capnp::Response<schema::GuestCalls::ConnectResults> answer) mutable {
        if (!answer.hasRefusal()) return Reached{kj::mv(channel), kj::String()};
        auto refusal = answer.getRefusal();
        return Reached{nullptr, kj::str(refusal.getReason(), ": ", refusal.getDetail())};
      });
}

}  // namespace postern::test
