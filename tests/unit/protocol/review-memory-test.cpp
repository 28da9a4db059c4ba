// What a peer with the right keys can make the other end hold.

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "protocol/session.h"
#include "tests/support/echo.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::Bytes;
using test::bytesOf;
using test::Echo;
using test::EchoServer;
using test::innerBytes;
using test::RawBytes;
using test::RawMeeting;
using test::SessionLab;

constexpr uint16_t MUCH_PADDING = 60000;

// Padding --------------------------------------------------------------------------------------------------------

// T27
TEST_CASE("bulk records of one byte and much padding are not kept with their padding") {
  RawMeeting meeting(Role::HOST);
  auto opened = KJ_ASSERT_NONNULL(meeting.session->bulk().open());
  kj::byte data[1] = {7};
  auto inner = innerBytes(uint8_t(RecordType::BULK), data, 0, opened.offer.channel, MUCH_PADDING, MUCH_PADDING);
  for (int i = 0; i < 500; ++i) meeting.peer.sendInner(bytesOf(inner));
  meeting.settle();
  CHECK(!meeting.session->isOver());
  CHECK(meeting.lab.pool.blocksOut() == 0);
  auto chunk = opened.channel->read().wait(meeting.lab.waitScope);
  REQUIRE(chunk.is<BulkChunk>());
  CHECK((chunk.get<BulkChunk>().bytes() == Bytes(data)));
}

// T27
TEST_CASE("short RPC messages with much padding are not kept with their padding") {
  RawMeeting meeting(Role::HOST);
  // One segment of one word.
  kj::byte message[16] = {0, 0, 0, 0, 1};
  auto inner = innerBytes(uint8_t(RecordType::RPC), message, 0, 0, MUCH_PADDING, MUCH_PADDING);
  for (int i = 0; i < 500; ++i) meeting.peer.sendInner(bytesOf(inner));
  meeting.settle();
  CHECK(!meeting.session->isOver());
  CHECK(meeting.lab.pool.blocksOut() == 0);
}

// RPC ------------------------------------------------------------------------------------------------------------

// A peer that speaks RPC by itself, and reads or finishes what it likes.
class RawCaller {
 public:
  explicit RawCaller(RawMeeting& meeting) : meeting(meeting) {
    capnp::MallocMessageBuilder message;
    message.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(0);
    add(message);
  }

  void ping(uint32_t question) {
    capnp::MallocMessageBuilder message;
    auto call = message.initRoot<capnp::rpc::Message>().initCall();
    call.setQuestionId(question);
    call.initTarget().initPromisedAnswer().setQuestionId(0);
    call.setInterfaceId(capnp::typeId<Echo>());
    call.setMethodId(1);
    call.initParams().getContent().initAs<Echo::PingParams>().setNumber(question);
    call.getSendResultsTo().setCaller();
    add(message);
  }
  void finish(uint32_t question) {
    capnp::MallocMessageBuilder message;
    message.initRoot<capnp::rpc::Message>().initFinish().setQuestionId(question);
    add(message);
  }
  void flush() {
    if (batch.empty()) return;
    meeting.peer.send(RecordType::RPC, bytesOf(batch));
    batch.clear();
    meeting.settle();
  }

 private:
  RawMeeting& meeting;
  RawBytes batch;

  void add(capnp::MessageBuilder& message) {
    auto words = capnp::messageToFlatArray(message);
    auto bytes = words.asBytes();
    if (batch.size() + bytes.size() > 16000) flush();
    batch.insert(batch.end(), bytes.begin(), bytes.end());
  }
};

constexpr uint32_t MANY_CALLS = 100'000;

// T41
TEST_CASE("a peer that calls and does not read the answers is not listened to until it does") {
  RawMeeting meeting(Role::HOST);
  auto server = kj::heap<EchoServer>();
  auto& echo = *server;
  RpcConnection rpc(*meeting.session, Role::HOST, kj::mv(server), [](kj::StringPtr) {});
  RawCaller caller(meeting);
  for (uint32_t i = 1; i <= MANY_CALLS; ++i) {
    caller.ping(i);
    caller.finish(i);
  }
  caller.flush();
  // What lies in the pipe, in the stream's queue and in the RPC system has been answered, and no more.
  CHECK(echo.calls > limits::MAX_RPC_BACKLOG_MESSAGES);
  CHECK(echo.calls < MANY_CALLS / 2);
  CHECK(!meeting.session->isOver());
  while (!meeting.peer.receiveAll().empty()) {
  }
  CHECK(echo.calls == MANY_CALLS);
}

TEST_CASE("a peer that calls and does not read the answers keeps nobody from ending the session") {
  RawMeeting meeting(Role::HOST);
  RpcConnection rpc(*meeting.session, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RawCaller caller(meeting);
  for (uint32_t i = 1; i <= MANY_CALLS; ++i) {
    caller.ping(i);
    caller.finish(i);
  }
  caller.flush();
  auto closing = meeting.session->close(CloseCode::GOODBYE);
  meeting.lab.advance(limits::CLOSE_LINGER);
  CHECK(meeting.session->isOver());
}

// T41
TEST_CASE("a peer that reads the answers and never finishes its calls is cut off, and told why") {
  RawMeeting meeting(Role::HOST);
  RpcConnection rpc(*meeting.session, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RawCaller caller(meeting);
  kj::Maybe<test::RawRecord> last;
  for (uint32_t i = 1; i < MANY_CALLS && !meeting.session->isOver(); ++i) {
    caller.ping(i);
    if (i % 100 == 0) {
      for (auto& record : meeting.peer.receiveAll()) last = kj::mv(record);
    }
  }
  REQUIRE(meeting.session->isOver());
  for (auto& record : meeting.peer.receiveAll()) last = kj::mv(record);
  auto& close = KJ_ASSERT_NONNULL(last);
  CHECK(close.is(RecordType::CLOSE));
  CHECK(close.data == RawBytes{kj::byte(CloseCode::RESOURCE_LIMIT)});
}

TEST_CASE("a peer that finishes its calls may make any number of them") {
  RawMeeting meeting(Role::HOST);
  auto server = kj::heap<EchoServer>();
  auto& echo = *server;
  RpcConnection rpc(*meeting.session, Role::HOST, kj::mv(server), [](kj::StringPtr) {});
  RawCaller caller(meeting);
  constexpr uint32_t CALLS = limits::MAX_RPC_ANSWERS + 1000;
  for (uint32_t i = 1; i <= CALLS; ++i) {
    caller.ping(i);
    caller.finish(i);
    if (i % 100 == 0) meeting.peer.receiveAll();
  }
  caller.flush();
  CHECK(!meeting.session->isOver());
  CHECK(echo.calls == CALLS);
}

TEST_CASE("a call with a message that is too large fails by itself, and the next one goes through") {
  SessionLab lab;
  auto sessions = lab.connectWithoutHandshake();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto echo = guest.peer().castAs<Echo>();
  auto tooLarge = echo.takeRequest();
  tooLarge.initData(limits::MAX_RPC_MESSAGE_BYTES);
  bool failed = false;
  auto sending = tooLarge.send().then([]() {}, [&](kj::Exception&&) { failed = true; }).eagerlyEvaluate(nullptr);
  lab.settle();
  CHECK(failed);
  CHECK(!sessions.guest->isOver());
  auto request = echo.pingRequest();
  request.setNumber(5);
  auto answer = request.send();
  lab.settle();
  REQUIRE(answer.poll(lab.waitScope));
  CHECK(answer.wait(lab.waitScope).getNumber() == 5);
}

// Blocks ---------------------------------------------------------------------------------------------------------

class HangingServer final : public Echo::Server {
 protected:
  kj::Promise<void> echo(EchoContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> ping(PingContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> fail(FailContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> hang(HangContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> take(TakeContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> count(CountContext) override { return kj::NEVER_DONE; }
};

TEST_CASE("a call in progress may keep its message for longer than session and pool live") {
  SessionLab lab;  // its loop, which keeps calls in progress, is destroyed behind its pool
  auto sessions = lab.connectWithoutHandshake();
  RpcConnection guest(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*sessions.host, Role::HOST, kj::heap<HangingServer>(), [](kj::StringPtr) {});
  lab.settle();
  auto request = guest.peer().castAs<Echo>().echoRequest();
  request.initData(40000);
  auto answer = request.send();
  lab.settle();
  CHECK(lab.pool.blocksOut() == 1);
}

}  // namespace
}  // namespace postern
