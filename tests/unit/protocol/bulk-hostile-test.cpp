// BULK records from a peer without manners.

#include <doctest/doctest.h>

#include "protocol/bulk-channel.h"
#include "protocol/limits.h"
#include "protocol/wire-int.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::bytesOf;
using test::RawBytes;
using test::RawMeeting;

// A real host that has accepted the raw guest's channel 1, and opened its own channel 2.
struct BulkMeeting : RawMeeting {
  explicit BulkMeeting(uint32_t sendCredit = 65536) : RawMeeting(Role::HOST) {
    auto accepted = session->bulk().accept({1, sendCredit});
    theirs = kj::mv(accepted.get<kj::Own<BulkChannel>>());
    auto opened = KJ_ASSERT_NONNULL(session->bulk().open());
    own = kj::mv(opened.channel);
    CHECK(opened.offer.channel == 2);
    CHECK(opened.offer.credit == limits::BULK_WINDOW_FIRST);
    auto records = peer.receiveAll();
    REQUIRE(records.size() == 1);
    CHECK(records[0].is(RecordType::BULK));
    CHECK(records[0].flags == BULK_CREDIT);
    CHECK(records[0].number() == limits::BULK_WINDOW_FIRST);
  }
  kj::Own<BulkChannel> theirs;
  kj::Own<BulkChannel> own;

  void sendData(uint32_t channel, size_t bytes) { peer.send(RecordType::BULK, bytesOf(RawBytes(bytes)), 0, channel); }
  void sendEnd(uint32_t channel, uint8_t flag) {
    kj::byte reason[1] = {0};
    peer.send(RecordType::BULK, kj::arrayPtr(reason, flag == BULK_RESET ? 1 : 0), flag, channel);
  }
};

void checkBreach(BulkMeeting& meeting, BulkError error) {
  auto end = meeting.end();
  CHECK(end.reason == EndReason::PROTOCOL_ERROR);
  CHECK((end.detail == describe(error)));
  auto records = meeting.peer.receiveAll();
  REQUIRE(!records.empty());
  CHECK(records.back().is(RecordType::CLOSE));
  CHECK(records.back().data == RawBytes{kj::byte(CloseCode::PROTOCOL_ERROR)});
}

void checkGoesOn(BulkMeeting& meeting) {
  meeting.peer.sendNumber(RecordType::PING, 99);
  auto records = meeting.peer.receiveAll();
  REQUIRE(!records.empty());
  CHECK(records.back().number() == 99);
}

// T27
TEST_CASE("credit may be used to its last byte, and one byte more ends the session") {
  for (uint32_t channel : {1u, 2u}) {
    for (size_t extra : {0, 1}) {
      BulkMeeting meeting;
      constexpr size_t HALF = limits::BULK_WINDOW_FIRST / 2 - limits::BULK_RECORD_COST;
      meeting.sendData(channel, HALF);
      meeting.sendData(channel, HALF + extra);
      meeting.settle();
      if (extra == 0) {
        checkGoesOn(meeting);
      } else {
        checkBreach(meeting, BulkError::CREDIT_OVERRUN);
      }
    }
  }
}

TEST_CASE("records cost credit beside their bytes") {
  BulkMeeting meeting;
  constexpr size_t RECORDS = limits::BULK_WINDOW_FIRST / (limits::BULK_RECORD_COST + 1);
  for (size_t i = 0; i < RECORDS; ++i) meeting.sendData(1, 1);
  checkGoesOn(meeting);
  meeting.sendData(1, 1);
  checkBreach(meeting, BulkError::CREDIT_OVERRUN);
}

// T27
TEST_CASE("credit does not come back while chunks live") {
  BulkMeeting meeting;
  meeting.sendData(1, MAX_BULK_DATA_BYTES);
  auto chunk = meeting.theirs->read().wait(meeting.lab.waitScope);
  CHECK(meeting.peer.receiveAll().empty());
  chunk = BulkEnd::RESET;
  auto records = meeting.peer.receiveAll();
  REQUIRE(records.size() == 1);
  CHECK(records[0].flags == BULK_CREDIT);
  CHECK(records[0].number() == 2 * limits::BULK_WINDOW_FIRST);  // all of it was used: the window has doubled
}

TEST_CASE("more credit than a window can have ends the session") {
  for (uint32_t amount : {limits::BULK_WINDOW_MAX - 65536 + 1, limits::BULK_WINDOW_MAX, 0xffffffffu}) {
    BulkMeeting meeting(65536);
    meeting.peer.sendCredit(1, amount);
    checkBreach(meeting, BulkError::CREDIT_OVERFLOW);
  }
  BulkMeeting meeting(65536);
  meeting.peer.sendCredit(1, limits::BULK_WINDOW_MAX - 65536);
  meeting.peer.sendCredit(1, 0);
  checkGoesOn(meeting);
  meeting.peer.sendCredit(1, 1);
  checkBreach(meeting, BulkError::CREDIT_OVERFLOW);
}

TEST_CASE("bytes and credit for a channel that was never open end the session") {
  for (uint32_t channel : {0u, 3u, 4u, 0xfffffffeu, 0xffffffffu}) {
    {
      BulkMeeting meeting;
      meeting.sendData(channel, 8);
      checkBreach(meeting, BulkError::UNKNOWN_CHANNEL);
    }
    BulkMeeting meeting;
    meeting.peer.sendCredit(channel, 8);
    checkBreach(meeting, BulkError::UNKNOWN_CHANNEL);
  }
}

TEST_CASE("an end of a channel that this end never opened ends the session; the peer's own may come before its offer") {
  for (uint8_t flag : {BULK_FINISHED, BULK_RESET}) {
    for (uint32_t channel : {0u, 4u, 0xfffffffeu}) {
      BulkMeeting meeting;
      meeting.sendEnd(channel, flag);
      checkBreach(meeting, BulkError::UNKNOWN_CHANNEL);
    }
    BulkMeeting meeting;
    meeting.sendEnd(3, flag);
    checkGoesOn(meeting);
    auto accepted = meeting.session->bulk().accept({3, 1000});
    auto end = accepted.get<kj::Own<BulkChannel>>()->read().wait(meeting.lab.waitScope);
    CHECK((end.get<BulkEnd>() == (flag == BULK_RESET ? BulkEnd::RESET : BulkEnd::FINISHED)));
  }
}

TEST_CASE("a second early FINISHED ends the session") {
  BulkMeeting meeting;
  meeting.sendEnd(3, BULK_FINISHED);
  meeting.sendEnd(3, BULK_FINISHED);
  checkBreach(meeting, BulkError::AFTER_FINISH);
}

TEST_CASE("ends of ever more channels that are never offered cost no memory") {
  BulkMeeting meeting;
  // The oldest are forgotten: of the first number FINISHED may come again.
  for (uint32_t i = 0; i <= limits::MAX_BULK_CHANNELS; ++i) meeting.sendEnd(3 + 2 * i, BULK_FINISHED);
  meeting.sendEnd(3, BULK_FINISHED);
  checkGoesOn(meeting);
  meeting.sendEnd(3 + 2 * limits::MAX_BULK_CHANNELS, BULK_FINISHED);
  checkBreach(meeting, BulkError::AFTER_FINISH);
}

TEST_CASE("late records of a closed channel are dropped") {
  for (uint32_t channel : {1u, 2u}) {
    BulkMeeting meeting;
    (channel == 1 ? meeting.theirs : meeting.own) = nullptr;
    auto records = meeting.peer.receiveAll();
    REQUIRE(records.size() == 1);
    CHECK(records[0].flags == BULK_RESET);
    CHECK(records[0].channel == channel);
    meeting.sendData(channel, 1000);
    meeting.peer.sendCredit(channel, 1000);
    meeting.sendEnd(channel, BULK_FINISHED);
    meeting.sendEnd(channel, BULK_RESET);
    checkGoesOn(meeting);
    CHECK(meeting.lab.pool.blocksOut() == 0);
  }
}

TEST_CASE("bytes behind FINISHED, and a second FINISHED, end the session") {
  for (bool data : {true, false}) {
    BulkMeeting meeting;
    meeting.sendData(1, 10);
    meeting.sendEnd(1, BULK_FINISHED);
    checkGoesOn(meeting);
    if (data) {
      meeting.sendData(1, 1);
    } else {
      meeting.sendEnd(1, BULK_FINISHED);
    }
    checkBreach(meeting, BulkError::AFTER_FINISH);
  }
}

TEST_CASE("a peer that goes on sending into a channel that was reset cannot send more than its credit") {
  BulkMeeting meeting;
  meeting.theirs->reset();
  meeting.sendData(1, MAX_BULK_DATA_BYTES);
  checkGoesOn(meeting);
  CHECK(meeting.lab.pool.blocksOut() == 0);
  meeting.sendData(1, 1);
  checkBreach(meeting, BulkError::CREDIT_OVERRUN);
}

TEST_CASE("no more is sent than was granted, whatever the credit's size") {
  for (uint32_t credit : {0u, 1u, limits::BULK_RECORD_COST, limits::BULK_RECORD_COST + 1, 1000u, 65536u, 200000u}) {
    BulkMeeting meeting(credit);
    RawBytes much(300000, 0x77);
    auto writing = meeting.theirs->write(bytesOf(much)).eagerlyEvaluate(nullptr);
    size_t cost = 0;
    for (auto& record : meeting.peer.receiveAll()) cost += record.data.size() + limits::BULK_RECORD_COST;
    CHECK(cost <= credit);
    CHECK(credit - cost <= limits::BULK_RECORD_COST);
    CHECK(!writing.poll(meeting.lab.waitScope));
  }
}

TEST_CASE("received records of any size hold at most twice their credit") {
  for (size_t bytes : {size_t(1), size_t(1000), size_t(16300), size_t(16400), size_t(32700), size_t(32760),
                       size_t(50000), MAX_BULK_DATA_BYTES}) {
    BulkMeeting meeting;
    size_t cost = 0;
    while (cost + bytes + limits::BULK_RECORD_COST <= limits::BULK_WINDOW_FIRST) {
      meeting.sendData(1, bytes);
      cost += bytes + limits::BULK_RECORD_COST;
    }
    meeting.settle();
    CHECK(meeting.lab.pool.blocksOut() * BlockPool::BLOCK_BYTES <= 2 * cost + RECORD_HEADER_BYTES);
  }
}

}  // namespace
}  // namespace postern
