// Between ACCEPT and the commit: nothing but CLOSE and COMMIT, at either end.

#include <doctest/doctest.h>

#include "protocol/session.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::bytesOf;
using test::Phase;
using test::RawBytes;
using test::RawMeeting;

constexpr Role BOTH[] = {Role::GUEST, Role::HOST};

void checkBreach(RawMeeting& meeting) {
  CHECK(meeting.end().reason == EndReason::PROTOCOL_ERROR);
  auto records = meeting.peer.receiveAll();
  REQUIRE(!records.empty());
  CHECK(records.back().is(RecordType::CLOSE));
  CHECK(records.back().data == RawBytes{kj::byte(CloseCode::PROTOCOL_ERROR)});
}

void sendAny(RawMeeting& meeting, RecordType type) {
  size_t length = type == RecordType::REKEY || type == RecordType::COMMIT ? 0 : 8;
  uint32_t channel = type == RecordType::BULK ? 1 : 0;
  meeting.peer.send(type, bytesOf(RawBytes(length, 1)), 0, channel);
}

constexpr RecordType REFUSED[] = {RecordType::RPC,  RecordType::REKEY, RecordType::PING,
                                  RecordType::PONG, RecordType::BULK,  RecordType::CONFIRM};

TEST_CASE("before the commit every record but CLOSE and COMMIT ends the session, at both ends") {
  for (auto role : BOTH) {
    for (auto type : REFUSED) {
      CAPTURE(int(role));
      CAPTURE(int(type));
      RawMeeting meeting(role, Phase::ENROLMENT);
      sendAny(meeting, type);
      checkBreach(meeting);
    }
  }
}

TEST_CASE("between COMMIT and COMMITTED the rule stands") {
  for (auto type : REFUSED) {
    {
      RawMeeting meeting(Role::HOST, Phase::ENROLMENT);
      meeting.peer.send(RecordType::COMMIT);
      meeting.session->whenCommit().wait(meeting.lab.waitScope);
      sendAny(meeting, type);
      checkBreach(meeting);
    }
    RawMeeting meeting(Role::GUEST, Phase::ENROLMENT);
    auto committed = meeting.session->commit().eagerlyEvaluate(nullptr);
    CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).is(RecordType::COMMIT));
    sendAny(meeting, type);
    checkBreach(meeting);
    CHECK_THROWS(committed.wait(meeting.lab.waitScope));
  }
}

TEST_CASE("CLOSE is understood before the commit") {
  for (auto role : BOTH) {
    RawMeeting meeting(role, Phase::ENROLMENT);
    kj::byte code = uint8_t(CloseCode::POLICY);
    meeting.peer.send(RecordType::CLOSE, kj::arrayPtr(&code, 1));
    auto end = meeting.end();
    CHECK(end.reason == EndReason::CLOSED_BY_PEER);
    CHECK((KJ_ASSERT_NONNULL(end.code) == CloseCode::POLICY));
  }
}

TEST_CASE("the guest's commit ends with COMMITTED, and then the session is as any other") {
  RawMeeting meeting(Role::GUEST, Phase::ENROLMENT);
  auto committed = meeting.session->commit();
  CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).is(RecordType::COMMIT));
  CHECK(!committed.poll(meeting.lab.waitScope));
  meeting.peer.send(RecordType::COMMIT);
  committed.wait(meeting.lab.waitScope);
  meeting.peer.sendNumber(RecordType::PING, 4);
  CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).number() == 4);
  meeting.peer.send(RecordType::COMMIT);
  checkBreach(meeting);
}

TEST_CASE("the host's commit waits for its owner, and then the session is as any other") {
  RawMeeting meeting(Role::HOST, Phase::ENROLMENT);
  auto asked = meeting.session->whenCommit();
  CHECK(!asked.poll(meeting.lab.waitScope));
  meeting.peer.send(RecordType::COMMIT);
  asked.wait(meeting.lab.waitScope);
  CHECK(meeting.peer.receive() == nullptr);
  meeting.session->confirmCommit();
  CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).is(RecordType::COMMIT));
  meeting.peer.sendNumber(RecordType::PING, 4);
  CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).number() == 4);
  meeting.peer.send(RecordType::COMMIT);
  checkBreach(meeting);
}

TEST_CASE("a COMMIT that came before anybody asked for it is not lost") {
  RawMeeting meeting(Role::HOST, Phase::ENROLMENT);
  meeting.peer.send(RecordType::COMMIT);
  meeting.settle();
  meeting.session->whenCommit().wait(meeting.lab.waitScope);
}

TEST_CASE("a second COMMIT ends the session") {
  RawMeeting meeting(Role::HOST, Phase::ENROLMENT);
  meeting.peer.send(RecordType::COMMIT);
  meeting.peer.send(RecordType::COMMIT);
  checkBreach(meeting);
}

TEST_CASE("COMMITTED without a COMMIT ends the session") {
  RawMeeting meeting(Role::GUEST, Phase::ENROLMENT);
  meeting.peer.send(RecordType::COMMIT);
  checkBreach(meeting);
}

TEST_CASE("a session that ends before the commit fails those who wait for it") {
  for (auto role : BOTH) {
    RawMeeting meeting(role, Phase::ENROLMENT);
    auto waiting = role == Role::GUEST ? meeting.session->commit() : meeting.session->whenCommit();
    meeting.settle();
    (role == Role::GUEST ? meeting.lab.wire.toGuest : meeting.lab.wire.toHost).end();
    CHECK_THROWS(waiting.wait(meeting.lab.waitScope));
    CHECK_THROWS(meeting.session->whenCommit().wait(meeting.lab.waitScope));
  }
}

TEST_CASE("this end does not ping before the commit") {
  for (auto role : BOTH) {
    RawMeeting meeting(role, Phase::ENROLMENT);
    CHECK_THROWS((void)meeting.session->ping());
  }
}

}  // namespace
}  // namespace postern
