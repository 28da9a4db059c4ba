// How a session ends, and what lives longer than it.

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "protocol/session.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::Bytes;
using test::bytesOf;
using test::FakePipe;
using test::innerBytes;
using test::RawMeeting;
using test::SessionLab;

TEST_CASE("a CLOSE that lies unread counts although the pipe takes no more") {
  RawMeeting meeting(Role::GUEST);
  auto pong = meeting.session->ping();
  // The peer has closed: what it sent before is still there, what we write is refused.
  kj::byte code[1] = {kj::byte(CloseCode::POLICY)};
  meeting.peer.send(RecordType::CLOSE, code);
  meeting.lab.wire.toHost.end();
  meeting.lab.wire.toGuest.end();
  auto end = meeting.end();
  CHECK(end.reason == EndReason::CLOSED_BY_PEER);
  CHECK(KJ_ASSERT_NONNULL(end.code) == CloseCode::POLICY);
}

TEST_CASE("a pipe that takes no more ends the session although the peer goes on sending") {
  RawMeeting meeting(Role::HOST);
  meeting.lab.wire.toGuest.end();
  meeting.peer.sendNumber(RecordType::PING, 1);
  CHECK(meeting.end().reason == EndReason::LINK_ENDED);
}

TEST_CASE("a peer that breaks a rule cannot hide it by not reading") {
  RawMeeting meeting(Role::HOST);
  meeting.lab.wire.toGuest.end();
  meeting.peer.sendNumber(RecordType::PONG, 1);
  CHECK(meeting.end().reason == EndReason::PROTOCOL_ERROR);
}

// A link whose reading fails as a lack of memory would make it fail.
class ThrowingLink final : public FrameLink {
 public:
  bool throwOnRead = false;
  bool throwOnWrite = false;
  bool closed = false;

  const HelloPair& hellos() const override { return pair; }
  void authenticated() override {}
  kj::OneOf<Frame, NoFrame, LinkEnd> readFrame() override {
    KJ_REQUIRE(!throwOnRead, "no memory");
    return NoFrame();
  }
  void park() override {}
  kj::Promise<void> whenReadable() override { return kj::NEVER_DONE; }
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>) override {
    KJ_REQUIRE(!throwOnWrite, "no memory");
    return {PipeState::OPEN, 0};
  }
  kj::Promise<void> whenWritable() override { return kj::READY_NOW; }
  void close() override { closed = true; }

 private:
  HelloPair pair{};
};

TEST_CASE("an exception while reading or writing ends the session") {
  for (bool reading : {true, false}) {
    SessionLab lab;
    auto owned = kj::heap<ThrowingLink>();
    auto& link = *owned;
    (reading ? link.throwOnRead : link.throwOnWrite) = true;
    Session session(Role::HOST, kj::mv(owned), RecordSealer(SealingKey{}, LinkTag{}), RecordOpener(OpeningKey{}), false,
                    lab.environment);
    auto ended = session.onEnd();
    auto channel = KJ_ASSERT_NONNULL(session.bulk().open());
    auto read = channel.channel->read();
    lab.settle();
    if (!reading) session.bulk().accept({1, 0}).get<kj::Own<BulkChannel>>() = nullptr;
    lab.settle();
    CHECK(session.isOver());
    CHECK(link.closed);
    REQUIRE(ended.poll(lab.waitScope));
    CHECK(ended.wait(lab.waitScope).reason == EndReason::FAILED_HERE);
    CHECK(read.wait(lab.waitScope).get<BulkEnd>() == BulkEnd::SESSION_ENDED);
  }
}

TEST_CASE("a read and a wait for credit can be given up and begun again") {
  RawMeeting meeting(Role::HOST);
  auto opened = KJ_ASSERT_NONNULL(meeting.session->bulk().open());
  { auto givenUp = opened.channel->read(); }
  { auto givenUp = opened.channel->whenSendable(); }
  auto read = opened.channel->read();
  auto sendable = opened.channel->whenSendable();
  kj::byte data[2] = {1, 2};
  meeting.peer.sendCredit(opened.offer.channel, 1000);
  meeting.peer.send(RecordType::BULK, data, 0, opened.offer.channel);
  meeting.settle();
  CHECK(sendable.wait(meeting.lab.waitScope));
  CHECK((read.wait(meeting.lab.waitScope).get<BulkChunk>().bytes() == Bytes(data)));
  // Still one at a time.
  auto first = opened.channel->read();
  CHECK_THROWS(opened.channel->read());
}

}  // namespace
}  // namespace postern
