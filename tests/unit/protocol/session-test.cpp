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
