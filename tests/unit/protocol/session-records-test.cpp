// Records in a session: what a peer with the right keys and no manners can send.

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "protocol/session.h"
#include "protocol/wire-int.h"
#include "tests/support/echo.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::Bytes;
using test::bytesOf;
using test::innerBytes;
using test::Phase;
using test::RawBytes;
using test::RawMeeting;
using test::RawRecord;

constexpr Role BOTH[] = {Role::GUEST, Role::HOST};

RawBytes zeros(size_t size) {
  return RawBytes(size);
}

// The session ended as a breach: the authenticated peer got one CLOSE with PROTOCOL_ERROR, and nothing behind it.
void checkBreach(RawMeeting& meeting) {
  auto end = meeting.end();
  CHECK(end.reason == EndReason::PROTOCOL_ERROR);
  auto records = meeting.peer.receiveAll();
  REQUIRE(records.size() >= 1);
  auto& last = records.back();
  CHECK(last.is(RecordType::CLOSE));
  CHECK(last.data == RawBytes{kj::byte(CloseCode::PROTOCOL_ERROR)});
  size_t closes = 0;
  for (auto& record : records) closes += record.is(RecordType::CLOSE);
  CHECK(closes == 1);
  CHECK(meeting.peer.peerHasClosed());
}

// What did not authenticate gets a bare close.
void checkBareClose(RawMeeting& meeting, EndReason reason) {
  CHECK(meeting.end().reason == reason);
  CHECK(meeting.peer.receive() == nullptr);
  CHECK(meeting.peer.peerHasClosed());
}

void checkGoesOn(RawMeeting& meeting) {
  meeting.peer.sendNumber(RecordType::PING, 77);
  bool answered = false;
  for (auto& record : meeting.peer.receiveAll()) answered = answered || record.number() == 77;
  CHECK(answered);
  CHECK(!meeting.session->isOver());
}

// Form -----------------------------------------------------------------------------------------------------------

TEST_CASE("a record shorter than header and tag gets a bare close, whatever its length") {
  for (auto role : BOTH) {
    for (size_t length = 0; length < TAG_BYTES + RECORD_HEADER_BYTES; ++length) {
      RawMeeting meeting(role);
      meeting.peer.sendFrame(FrameKind::RECORD, bytesOf(zeros(length)));
      checkBareClose(meeting, EndReason::BAD_RECORD);
    }
  }
}

TEST_CASE("an authentic record whose inner part is shorter than its header gets a bare close") {
  for (size_t length = 0; length < RECORD_HEADER_BYTES; ++length) {
    RawMeeting meeting(Role::HOST);
    meeting.peer.sendInner(bytesOf(zeros(length)));
    checkBareClose(meeting, EndReason::BAD_RECORD);
  }
}

TEST_CASE("the longest record that a frame can hold is received") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    // A PING whose padding fills the frame.
    kj::byte number[8] = {5};
    uint16_t padding = MAX_RECORD_DATA_BYTES - 8;
    auto inner = innerBytes(uint8_t(RecordType::PING), number, 0, 0, padding, padding);
    REQUIRE(inner.size() + TAG_BYTES == MAX_FRAME_BODY_BYTES);
    meeting.peer.sendInner(bytesOf(inner));
    auto pong = KJ_ASSERT_NONNULL(meeting.peer.receive());
    CHECK(pong.is(RecordType::PONG));
    CHECK(pong.number() == 5);
  }
}

TEST_CASE("padding is not data, whatever lies in it") {
  for (uint16_t padding : {uint16_t(1), uint16_t(7), uint16_t(8), uint16_t(100), uint16_t(3000)}) {
    RawMeeting meeting(Role::GUEST);
    kj::byte number[8] = {9};
    meeting.peer.sendInner(bytesOf(innerBytes(uint8_t(RecordType::PING), number, 0, 0, padding, padding)));
    CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).number() == 9);
    CHECK(!meeting.session->isOver());
  }
}

// T20
TEST_CASE("padding longer than what there is ends the session") {
  for (uint16_t padding : {uint16_t(9), uint16_t(10), uint16_t(0x7fff), uint16_t(0xffff)}) {
    RawMeeting meeting(Role::GUEST);
    kj::byte number[8] = {9};
    meeting.peer.sendInner(bytesOf(innerBytes(uint8_t(RecordType::PING), number, 0, 0, padding)));
    checkBreach(meeting);
  }
  // Padding that eats the data leaves data of a wrong length.
  for (uint16_t padding : {uint16_t(1), uint16_t(8)}) {
    RawMeeting meeting(Role::GUEST);
    kj::byte number[8] = {9};
    meeting.peer.sendInner(bytesOf(innerBytes(uint8_t(RecordType::PING), number, 0, 0, padding)));
    checkBreach(meeting);
  }
}

// T20
TEST_CASE("an unknown record type ends the session") {
  for (auto role : BOTH) {
    for (unsigned type = 0; type < 256; ++type) {
      if (type >= uint8_t(RecordType::RPC) && type <= uint8_t(RecordType::COMMIT)) continue;
      if (type > 12 && type < 250) continue;
      RawMeeting meeting(role);
      meeting.peer.sendInner(bytesOf(innerBytes(uint8_t(type), bytesOf(zeros(8)))));
      checkBreach(meeting);
    }
  }
}

// T20
TEST_CASE("every undefined flag of every type ends the session") {
  for (unsigned type = uint8_t(RecordType::RPC); type <= uint8_t(RecordType::COMMIT); ++type) {
    for (unsigned flags = 1; flags < 256; flags = flags < 8 ? flags + 1 : flags * 2) {
      bool isBulk = type == uint8_t(RecordType::BULK);
      if (isBulk && (flags == BULK_FINISHED || flags == BULK_CREDIT || flags == BULK_RESET)) continue;
      CAPTURE(type);
      CAPTURE(flags);
      RawMeeting meeting(Role::HOST);
      // The length that each type wants.
      size_t length = type == uint8_t(RecordType::CLOSE)                                          ? 1
                      : type == uint8_t(RecordType::REKEY) || type == uint8_t(RecordType::COMMIT) ? 0
                                                                                                  : 8;
      meeting.peer.sendInner(bytesOf(innerBytes(uint8_t(type), bytesOf(zeros(length)), uint8_t(flags))));
      checkBreach(meeting);
    }
  }
}

TEST_CASE("a channel on a type that has none ends the session") {
  for (auto type : {RecordType::RPC, RecordType::CLOSE, RecordType::REKEY, RecordType::PING, RecordType::PONG,
                    RecordType::CONFIRM, RecordType::COMMIT}) {
    for (uint32_t channel : {1u, 0x01000000u, 0xffffffffu}) {
      RawMeeting meeting(Role::GUEST);
      size_t length = type == RecordType::CLOSE ? 1 : type == RecordType::REKEY || type == RecordType::COMMIT ? 0 : 8;
      meeting.peer.send(type, bytesOf(zeros(length)), 0, channel);
      checkBreach(meeting);
    }
  }
}

// T20
TEST_CASE("data of a length that a type does not have ends the session") {
  struct Wrong {
    RecordType type;
    uint8_t flags;
    std::vector<size_t> lengths;
  };
  const Wrong all[] = {
      {RecordType::RPC, 0, {0, 1, 7, 9, 12, 65511}},
      {RecordType::CLOSE, 0, {0, 2, 8}},
      {RecordType::REKEY, 0, {1, 8}},
      {RecordType::PING, 0, {0, 7, 9, 16}},
      {RecordType::PONG, 0, {0, 7, 9, 16}},
      {RecordType::CONFIRM, 0, {0}},
      {RecordType::COMMIT, 0, {1}},
      {RecordType::BULK, 0, {0}},
      {RecordType::BULK, BULK_FINISHED, {1}},
      {RecordType::BULK, BULK_CREDIT, {0, 3, 5, 8}},
      {RecordType::BULK, BULK_RESET, {0, 2}},
  };
  for (auto& wrong : all) {
    for (size_t length : wrong.lengths) {
      CAPTURE(unsigned(wrong.type));
      CAPTURE(length);
      RawMeeting meeting(Role::HOST);
      meeting.peer.send(wrong.type, bytesOf(zeros(length)), wrong.flags, wrong.type == RecordType::BULK ? 1 : 0);
      checkBreach(meeting);
    }
  }
}

// T20
TEST_CASE("CONFIRM and COMMIT inside a session end it") {
  for (auto role : BOTH) {
    for (auto type : {RecordType::CONFIRM, RecordType::COMMIT}) {
      RawMeeting meeting(role);
      meeting.peer.send(type, bytesOf(zeros(type == RecordType::CONFIRM ? 8 : 0)));
      checkBreach(meeting);
    }
  }
}

TEST_CASE("a handshake message inside a session gets a bare close: who sent it is not known") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    meeting.peer.sendFrame(FrameKind::HANDSHAKE, bytesOf(zeros(48)));
    checkBareClose(meeting, EndReason::BAD_FRAME);
  }
}

TEST_CASE("a HELLO inside a session closes the link") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    meeting.peer.sendHello();
    checkBareClose(meeting, EndReason::BAD_FRAME);
  }
}

TEST_CASE("a frame with another session's tag closes the link") {
  RawMeeting meeting(Role::HOST);
  auto frame = meeting.peer.seal(bytesOf(innerBytes(uint8_t(RecordType::PING), bytesOf(zeros(8)))));
  frame[5] ^= 1;
  meeting.peer.sendBytes(bytesOf(frame));
  checkBareClose(meeting, EndReason::BAD_FRAME);
}

// Order ----------------------------------------------------------------------------------------------------------

// T14, T16
TEST_CASE("a record that is repeated, dropped or swapped gets a bare close, and is not acted on") {
  for (auto role : BOTH) {
    for (int fault = 0; fault < 3; ++fault) {
      RawMeeting meeting(role);
      std::vector<RawBytes> frames;
      for (kj::byte i = 0; i < 3; ++i) {
        kj::byte number[8] = {kj::byte(i + 1)};
        frames.push_back(meeting.peer.seal(bytesOf(innerBytes(uint8_t(RecordType::PING), number))));
      }
      std::vector<size_t> order;
      if (fault == 0) order = {0, 0};
      if (fault == 1) order = {0, 2};
      if (fault == 2) order = {1, 0};
      meeting.peer.sendBytes(bytesOf(frames[order[0]]));
      auto first = meeting.peer.receive();
      CHECK((first != nullptr) == (order[0] == 0));
      meeting.peer.sendBytes(bytesOf(frames[order[1]]));
      checkBareClose(meeting, EndReason::BAD_RECORD);
    }
  }
}

// T15
TEST_CASE("records reflected to their sender do not open") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    auto ping = meeting.session->ping().eagerlyEvaluate(nullptr);
    auto frame = KJ_ASSERT_NONNULL(meeting.peer.receiveFrame());
    meeting.peer.sendFrame(frame.kind, bytesOf(frame.body));
    checkBareClose(meeting, EndReason::BAD_RECORD);
    CHECK_THROWS(ping.wait(meeting.lab.waitScope));
  }
}

// Closing --------------------------------------------------------------------------------------------------------

TEST_CASE("each close code reaches the owner, and RPC sees a clean end") {
  for (auto role : BOTH) {
    for (uint8_t code = 1; code <= uint8_t(CloseCode::VERSION); ++code) {
      RawMeeting meeting(role);
      auto reading = meeting.session->rpcStream().tryReadMessage(nullptr, {}, nullptr).eagerlyEvaluate(nullptr);
      meeting.peer.send(RecordType::CLOSE, kj::arrayPtr(&code, 1));
      auto end = meeting.end();
      CHECK(end.reason == EndReason::CLOSED_BY_PEER);
      CHECK((KJ_ASSERT_NONNULL(end.code) == CloseCode(code)));
      CHECK((reading.wait(meeting.lab.waitScope) == nullptr));
      CHECK(meeting.peer.peerHasClosed());
      CHECK(meeting.peer.receive() == nullptr);
    }
  }
}

TEST_CASE("a close code of a later version closes all the same, but not cleanly") {
  for (uint8_t code : {uint8_t(0), uint8_t(uint8_t(CloseCode::VERSION) + 1), uint8_t(255)}) {
    RawMeeting meeting(Role::GUEST);
    auto reading = meeting.session->rpcStream().tryReadMessage(nullptr, {}, nullptr).eagerlyEvaluate(nullptr);
    meeting.peer.send(RecordType::CLOSE, kj::arrayPtr(&code, 1));
    auto end = meeting.end();
    CHECK(end.reason == EndReason::CLOSED_BY_PEER);
    CHECK(end.code == nullptr);
    CHECK_THROWS(reading.wait(meeting.lab.waitScope));
  }
}

TEST_CASE("what lies behind CLOSE is not looked at") {
  RawMeeting meeting(Role::HOST);
  kj::byte code = uint8_t(CloseCode::REPLACED);
  auto close = meeting.peer.seal(bytesOf(innerBytes(uint8_t(RecordType::CLOSE), kj::arrayPtr(&code, 1))));
  close.insert(close.end(), 1000, 0xee);
  meeting.peer.sendBytes(bytesOf(close));
  auto end = meeting.end();
  CHECK(end.reason == EndReason::CLOSED_BY_PEER);
  CHECK((KJ_ASSERT_NONNULL(end.code) == CloseCode::REPLACED));
}

TEST_CASE("close sends one CLOSE, behind what RPC had to say, and nothing behind it") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    capnp::MallocMessageBuilder message;
    message.initRoot<capnp::AnyPointer>().setAs<capnp::Text>("last words");
    auto written = meeting.session->rpcStream().writeMessage(nullptr, message.getSegmentsForOutput());
    auto ping = meeting.session->ping().eagerlyEvaluate(nullptr);
    auto closing = meeting.session->close(CloseCode::GOODBYE);
    meeting.settle();
    auto records = meeting.peer.receiveAll();
    REQUIRE(records.size() == 3);
    CHECK(records[0].is(RecordType::PING));
    CHECK(records[1].is(RecordType::RPC));
    CHECK(records[2].is(RecordType::CLOSE));
    CHECK(records[2].data == RawBytes{kj::byte(CloseCode::GOODBYE)});
    closing.wait(meeting.lab.waitScope);
    CHECK(meeting.end().reason == EndReason::CLOSED_HERE);
    CHECK(meeting.peer.peerHasClosed());
    CHECK_THROWS(ping.wait(meeting.lab.waitScope));
  }
}

TEST_CASE("between CLOSE and the pipe's taking it nothing else is sent or started") {
  RawMeeting meeting(Role::HOST);
  auto& direction = meeting.lab.wire.toGuest;
  direction.capacity = 10;  // CLOSE goes out in pieces
  auto closing = meeting.session->close(CloseCode::GOODBYE).eagerlyEvaluate(nullptr);
  meeting.settle();
  meeting.peer.sendNumber(RecordType::PING, 1);
  meeting.settle();
  direction.capacity = 1000;
  auto records = meeting.peer.receiveAll();
  REQUIRE(records.size() == 1);
  CHECK(records[0].is(RecordType::CLOSE));
  closing.wait(meeting.lab.waitScope);
}

TEST_CASE("a peer that does not read is not waited for longer than the linger time") {
  RawMeeting meeting(Role::HOST);
  meeting.lab.wire.toGuest.capacity = 4;
  auto closing = meeting.session->close(CloseCode::GOODBYE).eagerlyEvaluate(nullptr);
  meeting.lab.advance(limits::CLOSE_LINGER - 1 * kj::MILLISECONDS);
  CHECK(!meeting.session->isOver());
  meeting.lab.advance(1 * kj::MILLISECONDS);
  CHECK(meeting.end().reason == EndReason::CLOSED_HERE);
  closing.wait(meeting.lab.waitScope);
}

TEST_CASE("close may be called twice, and its promise outlives the session") {
  RawMeeting meeting(Role::GUEST);
  meeting.lab.wire.toHost.capacity = 4;
  auto first = meeting.session->close(CloseCode::GOODBYE);
  auto second = meeting.session->close(CloseCode::INTERNAL);
  meeting.settle();
  meeting.session = nullptr;
  first.wait(meeting.lab.waitScope);
  second.wait(meeting.lab.waitScope);
}

// T19
TEST_CASE("the end of a stream without CLOSE is a failure, never an end") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    auto reading = meeting.session->rpcStream().tryReadMessage(nullptr, {}, nullptr).eagerlyEvaluate(nullptr);
    (role == Role::HOST ? meeting.lab.wire.toHost : meeting.lab.wire.toGuest).end();
    CHECK(meeting.end().reason == EndReason::LINK_ENDED);
    bool failed = false;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { reading.wait(meeting.lab.waitScope); })) {
      failed = true;
      CHECK((exception->getType() == kj::Exception::Type::DISCONNECTED));
    }
    CHECK(failed);
  }
}

// PING -----------------------------------------------------------------------------------------------------------

TEST_CASE("PONG without a PING, or from the future, ends the session") {
  for (auto role : BOTH) {
    for (uint64_t number : {uint64_t(0), uint64_t(1), ~uint64_t(0)}) {
      RawMeeting meeting(role);
      meeting.peer.sendNumber(RecordType::PONG, number);
      checkBreach(meeting);
    }
    RawMeeting meeting(role);
    auto ping = meeting.session->ping().eagerlyEvaluate(nullptr);
    auto number = KJ_ASSERT_NONNULL(meeting.peer.receive()).number();
    meeting.peer.sendNumber(RecordType::PONG, number + 1);
    checkBreach(meeting);
    CHECK_THROWS(ping.wait(meeting.lab.waitScope));
  }
}

TEST_CASE("several pings are answered by one PONG") {
  RawMeeting meeting(Role::HOST);
  kj::Vector<kj::Promise<kj::Duration>> pings;
  for (int i = 0; i < 3; ++i) {
    pings.add(meeting.session->ping());
    meeting.lab.advance(100 * kj::MILLISECONDS);
  }
  auto records = meeting.peer.receiveAll();
  REQUIRE(records.size() == 3);
  meeting.peer.sendNumber(RecordType::PONG, records[2].number());
  CHECK(pings[0].wait(meeting.lab.waitScope) == 300 * kj::MILLISECONDS);
  CHECK(pings[1].wait(meeting.lab.waitScope) == 200 * kj::MILLISECONDS);
  CHECK(pings[2].wait(meeting.lab.waitScope) == 100 * kj::MILLISECONDS);
}

TEST_CASE("a ping that is not answered in three seconds ends the session, and not earlier") {
  RawMeeting meeting(Role::GUEST);
  auto ping = meeting.session->ping().eagerlyEvaluate(nullptr);
  meeting.lab.advance(limits::PING_DEADLINE - 1 * kj::MILLISECONDS);
  CHECK(!meeting.session->isOver());
  meeting.lab.advance(1 * kj::MILLISECONDS);
  CHECK(meeting.end().reason == EndReason::PING_TIMEOUT);
  CHECK_THROWS(ping.wait(meeting.lab.waitScope));
  CHECK(meeting.peer.peerHasClosed());
}

TEST_CASE("each ping has its own three seconds") {
  RawMeeting meeting(Role::HOST);
  auto first = meeting.session->ping().eagerlyEvaluate(nullptr);
  meeting.lab.advance(2 * kj::SECONDS);
  auto second = meeting.session->ping().eagerlyEvaluate(nullptr);
  meeting.peer.sendNumber(RecordType::PONG, 1);
  meeting.settle();
  meeting.lab.advance(2 * kj::SECONDS);
  CHECK(!meeting.session->isOver());
  CHECK(first.wait(meeting.lab.waitScope) == 2 * kj::SECONDS);
  meeting.lab.advance(1 * kj::SECONDS);
  CHECK(meeting.end().reason == EndReason::PING_TIMEOUT);
}

// T28
TEST_CASE("a flood of PINGs against a stalled writer costs one PONG") {
  RawMeeting meeting(Role::HOST);
  auto& direction = meeting.lab.wire.toGuest;
  direction.capacity = 1;
  constexpr uint64_t COUNT = 100000;
  RawBytes batch;
  for (uint64_t i = 1; i <= COUNT; ++i) {
    kj::byte number[8];
    putLittleEndian<uint64_t>(i, number);
    auto frame = meeting.peer.seal(bytesOf(innerBytes(uint8_t(RecordType::PING), number)));
    batch.insert(batch.end(), frame.begin(), frame.end());
    if (i == limits::REKEY_AFTER_RECORDS) {
      meeting.peer.sendBytes(bytesOf(batch));
      batch.clear();
      meeting.peer.sendRekey();
    }
    if (i % 1000 == 0) {
      meeting.peer.sendBytes(bytesOf(batch));
      batch.clear();
      meeting.settle();
    }
  }
  CHECK(!meeting.session->isOver());
  direction.capacity = size_t(256) << 10;
  // What was being written when the pipe filled, and the latest.
  auto records = meeting.peer.receiveAll();
  CHECK(records.size() <= 3);
  REQUIRE(!records.empty());
  CHECK(records.back().number() == COUNT);
}

// REKEY ----------------------------------------------------------------------------------------------------------

// T18
TEST_CASE("a storm of REKEYs ends the session") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    meeting.peer.sendRekey();
    checkBreach(meeting);
  }
}

TEST_CASE("a REKEY is welcome after half of the time that an honest sender waits") {
  RawMeeting meeting(Role::HOST);
  meeting.lab.advance(limits::REKEY_STORM_TIME);
  meeting.peer.sendRekey();
  checkGoesOn(meeting);
  meeting.lab.advance(limits::REKEY_STORM_TIME - 1 * kj::MILLISECONDS);
  meeting.peer.sendRekey();
  checkBreach(meeting);
}

TEST_CASE("a REKEY is welcome after half of the records that an honest sender waits for") {
  for (uint64_t before : {limits::REKEY_STORM_RECORDS - 3, limits::REKEY_STORM_RECORDS - 2}) {
    RawMeeting meeting(Role::GUEST);
    for (uint64_t i = 1; i <= before; ++i) meeting.peer.sendNumber(RecordType::PING, i);
    meeting.settle();
    meeting.peer.sendRekey();
    meeting.settle();
    // ACCEPT was the first record under this key, the REKEY is the last.
    CHECK(meeting.session->isOver() == (1 + before + 1 < limits::REKEY_STORM_RECORDS));
    if (!meeting.session->isOver()) checkGoesOn(meeting);
  }
}

// T18
TEST_CASE("a sender that never changes its key is cut off") {
  RawMeeting meeting(Role::HOST);
  // CONFIRM was the first record.
  for (uint64_t i = 1; i < limits::MAX_RECORDS_WITHOUT_REKEY; ++i) {
    meeting.peer.sendNumber(RecordType::PING, i);
    if (i % 4096 == 0) meeting.settle();
  }
  CHECK(meeting.peer.receiveAll().back().number() == limits::MAX_RECORDS_WITHOUT_REKEY - 1);
  REQUIRE(!meeting.session->isOver());
  meeting.peer.sendNumber(RecordType::PING, limits::MAX_RECORDS_WITHOUT_REKEY);
  checkBreach(meeting);
}

// T18
TEST_CASE("a session changes its key by itself after ten minutes, when it next sends") {
  for (auto role : BOTH) {
    RawMeeting meeting(role);
    meeting.lab.advance(limits::REKEY_AFTER - 1 * kj::MILLISECONDS);
    meeting.peer.sendNumber(RecordType::PING, 1);
    CHECK(meeting.peer.receiveAll().size() == 1);
    meeting.lab.advance(1 * kj::MILLISECONDS);
    CHECK(meeting.peer.receive() == nullptr);  // not for its own sake
    meeting.peer.sendNumber(RecordType::PING, 2);
    auto records = meeting.peer.receiveAll();
    REQUIRE(records.size() == 2);
    CHECK(records[0].is(RecordType::REKEY));
    CHECK(records[1].number() == 2);
    meeting.peer.sendNumber(RecordType::PING, 3);
    CHECK(meeting.peer.receiveAll().size() == 1);
  }
}

TEST_CASE("a session changes its key by itself after 2^16 records, and traffic goes on") {
  RawMeeting meeting(Role::GUEST);
  std::vector<uint64_t> rekeys;
  uint64_t sent = 1;  // CONFIRM
  for (uint64_t i = 1; i <= 3 * limits::REKEY_AFTER_RECORDS; ++i) {
    // The peer keeps the rules as well.
    if (i == limits::REKEY_AFTER_RECORDS || i == 2 * limits::REKEY_AFTER_RECORDS) meeting.peer.sendRekey();
    meeting.peer.sendNumber(RecordType::PING, i);
    // One answer to each: the peer waits for it.
    meeting.settle();
    if (i % 64 != 0) continue;
    for (auto& record : meeting.peer.receiveAll()) {
      if (record.is(RecordType::REKEY)) rekeys.push_back(sent);
      ++sent;
    }
  }
  REQUIRE(rekeys.size() == 3);
  CHECK(rekeys[0] == limits::REKEY_AFTER_RECORDS);
  CHECK(rekeys[1] - rekeys[0] == limits::REKEY_AFTER_RECORDS + 1);
  CHECK(!meeting.session->isOver());
}

TEST_CASE("fresh keys are due after a day") {
  RawMeeting meeting(Role::GUEST);
  meeting.lab.advance(limits::RENEW_AFTER - 1 * kj::SECONDS);
  CHECK(!meeting.session->isRenewalDue());
  meeting.lab.advance(1 * kj::SECONDS);
  CHECK(meeting.session->isRenewalDue());
}

}  // namespace
}  // namespace postern
