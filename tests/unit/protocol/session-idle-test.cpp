// An idle session costs nothing: no buffer, no timer.

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "tests/support/echo.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::Echo;
using test::EchoServer;
using test::SessionLab;

void checkIdle(SessionLab& lab) {
  CHECK(lab.pool.freeBlocks() == 0);
  CHECK(lab.pool.blocksOut() == 0);
  CHECK(lab.timer.nextEvent() == nullptr);
}

TEST_CASE("a session without traffic holds no block and has no timer running") {
  for (bool enrolment : {false, true}) {
    SessionLab lab;
    if (enrolment) lab.useEnrolment();
    auto sessions = lab.connect();
    lab.settle();
    lab.advance(limits::BUFFER_IDLE);
    checkIdle(lab);
  }
}

TEST_CASE("a second after RPC, bulk and pings have ceased nothing is held") {
  SessionLab lab;
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  {
    auto request = guest.peer().castAs<Echo>().echoRequest();
    request.initData(300000);
    CHECK(request.send().wait(lab.waitScope).getData().size() == 300000);
  }
  auto opened = KJ_ASSERT_NONNULL(sessions.guest->bulk().open());
  auto accepted = sessions.host->bulk().accept(opened.offer);
  auto& reader = *accepted.get<kj::Own<BulkChannel>>();
  auto bytes = kj::heapArray<kj::byte>(1000000);
  lab.random.fill(bytes);
  auto writing = opened.channel->write(bytes).eagerlyEvaluate(nullptr);
  for (size_t got = 0; got < bytes.size();) {
    got += reader.read().wait(lab.waitScope).get<BulkChunk>().bytes().size();
    lab.advance(1 * kj::MILLISECONDS);
  }
  sessions.guest->ping().wait(lab.waitScope);
  sessions.host->ping().wait(lab.waitScope);
  lab.settle();
  CHECK(lab.pool.freeBlocks() > 0);
  // Channels, capabilities and sessions are all still open.
  lab.advance(limits::BUFFER_IDLE);
  checkIdle(lab);
}

TEST_CASE("small calls take no block, and so start no timer") {
  SessionLab lab;
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto echo = guest.peer().castAs<Echo>();
  lab.settle();
  lab.advance(limits::BUFFER_IDLE);
  checkIdle(lab);
  for (int i = 0; i < 3; ++i) {
    echo.pingRequest().send().wait(lab.waitScope);
    lab.settle();
    checkIdle(lab);
  }
}

TEST_CASE("a message of any size around a small record's arrives as it was") {
  SessionLab lab;
  auto sessions = lab.connect();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto echo = guest.peer().castAs<Echo>();
  for (size_t size = 700; size < 1300; size += 8) {
    auto bytes = kj::heapArray<kj::byte>(size);
    lab.random.fill(bytes);
    auto first = echo.echoRequest(), second = echo.echoRequest();
    first.setData(bytes);
    second.setData(bytes.slice(0, 8));
    auto one = first.send(), two = second.send();  // in one record, if they fit
    CHECK((one.wait(lab.waitScope).getData() == capnp::Data::Reader(bytes)));
    CHECK((two.wait(lab.waitScope).getData() == capnp::Data::Reader(bytes.slice(0, 8))));
  }
}

TEST_CASE("ten minutes of silence wake nobody") {
  SessionLab lab;
  auto sessions = lab.connect();
  lab.advance(limits::BUFFER_IDLE);
  auto before = sessions.guest->bytesSent() + sessions.host->bytesSent();
  lab.advance(limits::RENEW_AFTER);
  CHECK(sessions.guest->bytesSent() + sessions.host->bytesSent() == before);
  checkIdle(lab);
}

}  // namespace
}  // namespace postern
