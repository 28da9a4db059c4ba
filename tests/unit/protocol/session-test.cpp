#include "protocol/session.h"

#include <doctest/doctest.h>

#include "protocol/rpc-system.h"
#include "tests/support/echo.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::Echo;
using test::EchoServer;
using test::SessionLab;

TEST_CASE("an enrolled guest and its host call each other over a session") {
  SessionLab lab;
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  for (auto* from : {&guest, &host}) {
    auto request = from->peer().castAs<Echo>().pingRequest();
    request.setNumber(42);
    CHECK(request.send().wait(lab.waitScope).getNumber() == 42);
  }
}

TEST_CASE("an enrolment commits and is then a session as any other") {
  SessionLab lab;
  lab.useEnrolment();
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto request = host.peer().castAs<Echo>().pingRequest();
  request.setNumber(7);
  CHECK(request.send().wait(lab.waitScope).getNumber() == 7);
}

// T29
TEST_CASE("an exception reaches the peer as public text only, and this end's log in full") {
  SessionLab lab;
  auto sessions = lab.connect();
  kj::Vector<kj::String> log;
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(),
                      [&](kj::StringPtr text) { log.add(kj::str(text)); });
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto request = host.peer().castAs<Echo>().failRequest();
  request.setText("password 1234");
  kj::String seen;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { request.send().wait(lab.waitScope); })) {
    seen = kj::str(exception->getDescription());
  }
  CHECK((seen == "remote exception: the other end failed to do this"));
  REQUIRE(log.size() == 1);
  CHECK(strstr(log[0].cStr(), "password 1234") != nullptr);
}

// Notes how much had been received when it was called.
class NotingServer final : public Echo::Server {
 public:
  NotingServer(const Session& session, uint64_t& receivedWhenCalled)
      : session(session), receivedWhenCalled(receivedWhenCalled) {}

 protected:
  kj::Promise<void> ping(PingContext) override {
    receivedWhenCalled = session.bytesReceived();
    return kj::READY_NOW;
  }

 private:
  const Session& session;
  uint64_t& receivedWhenCalled;
};

TEST_CASE("a call is carried out and answered before the bulk records that were read together with it") {
  SessionLab lab;
  auto sessions = lab.connect();
  uint64_t receivedWhenCalled = 0;
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<NotingServer>(*sessions.host, receivedWhenCalled),
                     [](kj::StringPtr) {});
  auto opened = KJ_ASSERT_NONNULL(sessions.guest->bulk().open());
  auto accepted = sessions.host->bulk().accept(opened.offer);
  auto& hostChannel = *accepted.get<kj::Own<BulkChannel>>();
  guest.peer().whenResolved().wait(lab.waitScope);
  lab.settle();
  REQUIRE(opened.channel->sendable() == MAX_BULK_DATA_BYTES);

  constexpr size_t RECORD = 30'000;
  lab.wire.toHost.setStalled(true);
  auto answer = guest.peer().castAs<Echo>().pingRequest().send();
  lab.settle();
  for (int i = 0; i < 2; ++i) opened.channel->send(opened.channel->newBlock(), RECORD);
  lab.settle();
  REQUIRE(lab.wire.toHost.lying() > 2 * RECORD);

  uint64_t received = sessions.host->bytesReceived();
  uint64_t written = lab.wire.toGuest.written();
  uint64_t writtenWhenBulkCame = 0;
  auto reading = hostChannel.read()
                     .then([&](kj::OneOf<BulkChunk, BulkEnd> next) {
                       writtenWhenBulkCame = lab.wire.toGuest.written();
                       return next.is<BulkChunk>();
                     })
                     .eagerlyEvaluate(nullptr);
  lab.wire.toHost.setStalled(false);
  CHECK(reading.wait(lab.waitScope));
  answer.wait(lab.waitScope);
  CHECK(receivedWhenCalled > received);
  CHECK(receivedWhenCalled < received + RECORD);
  CHECK(writtenWhenBulkCame > written);
}

TEST_CASE("a ping is answered") {
  SessionLab lab;
  auto sessions = lab.connect();
  auto rtt = sessions.guest->ping().wait(lab.waitScope);
  CHECK(rtt == 0 * kj::SECONDS);
}

TEST_CASE("bulk bytes travel both ways and end") {
  SessionLab lab;
  auto sessions = lab.connect();
  auto opened = KJ_ASSERT_NONNULL(sessions.host->bulk().open());
  auto accepted = sessions.guest->bulk().accept(opened.offer);
  auto& guestChannel = *accepted.get<kj::Own<BulkChannel>>();

  auto sent = kj::heapArray<kj::byte>(3 << 20);
  lab.random.fill(sent);
  auto writing = opened.channel->write(sent)
                     .then([&](bool all) {
                       opened.channel->finish();
                       return all;
                     })
                     .eagerlyEvaluate(nullptr);
  kj::Vector<kj::byte> received;
  for (;;) {
    auto next = guestChannel.read().wait(lab.waitScope);
    if (next.is<BulkEnd>()) {
      CHECK(next.get<BulkEnd>() == BulkEnd::FINISHED);
      break;
    }
    received.addAll(next.get<BulkChunk>().bytes());
  }
  CHECK(writing.wait(lab.waitScope));
  CHECK((received.asPtr() == sent.asPtr()));
}

}  // namespace
}  // namespace postern
