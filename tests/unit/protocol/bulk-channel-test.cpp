// Bulk channels between two real sessions: bytes, ends, credit and memory.

#include "protocol/bulk-channel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "protocol/session.h"
#include "tests/support/echo.h"
#include "tests/support/sanitized.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::Echo;
using test::EchoServer;
using test::SANITIZED;
using test::SessionLab;

constexpr Role BOTH[] = {Role::GUEST, Role::HOST};

Role other(Role role) {
  return role == Role::GUEST ? Role::HOST : Role::GUEST;
}

// Both ends of a channel that `opener` opened.
struct Channel {
  Channel(SessionLab::Sessions& sessions, Role opener) {
    auto opened = KJ_ASSERT_NONNULL(sessions.at(opener).bulk().open());
    auto accepted = sessions.at(other(opener)).bulk().accept(opened.offer);
    near = kj::mv(opened.channel);
    far = kj::mv(accepted.get<kj::Own<BulkChannel>>());
  }
  kj::Own<BulkChannel> near;  // the opener's
  kj::Own<BulkChannel> far;
};

struct Meeting {
  Meeting() : sessions(lab.connectWithoutHandshake()) {}
  SessionLab lab;
  SessionLab::Sessions sessions;

  // The next chunk's bytes, or how the channel ended.
  kj::OneOf<BulkChunk, BulkEnd> next(BulkChannel& channel) { return channel.read().wait(lab.waitScope); }

  // Everything up to the end, which is returned.
  BulkEnd readAll(BulkChannel& channel, kj::Vector<kj::byte>& into) {
    for (;;) {
      auto one = next(channel);
      if (one.is<BulkEnd>()) return one.get<BulkEnd>();
      into.addAll(one.get<BulkChunk>().bytes());
    }
  }
};

kj::Array<kj::byte> randomBytes(SessionLab& lab, size_t size) {
  auto bytes = kj::heapArray<kj::byte>(size);
  lab.random.fill(bytes);
  return bytes;
}

// Writes all in one-byte records.
kj::Promise<void> writeBytewise(BulkChannel& channel, kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0 && channel.sendable() > 0) {
    auto block = channel.newBlock();
    block.space()[0] = bytes[0];
    channel.send(kj::mv(block), 1);
    bytes = bytes.slice(1, bytes.size());
  }
  if (bytes.size() == 0) return kj::READY_NOW;
  return channel.whenSendable().then([&channel, bytes](bool canSend) -> kj::Promise<void> {
    KJ_ASSERT(canSend);
    return writeBytewise(channel, bytes);
  });
}

// Bytes and ends ---------------------------------------------------------------------------------------------------

TEST_CASE("bytes arrive exactly, in both directions at once, whoever opened the channel") {
  for (auto opener : BOTH) {
    Meeting meeting;
    Channel channel(meeting.sessions, opener);
    auto there = randomBytes(meeting.lab, 700001);
    auto back = randomBytes(meeting.lab, 500003);
    auto writing = channel.near->write(there)
                       .then([&](bool all) {
                         CHECK(all);
                         channel.near->finish();
                       })
                       .eagerlyEvaluate(nullptr);
    auto answering = channel.far->write(back)
                         .then([&](bool all) {
                           CHECK(all);
                           channel.far->finish();
                         })
                         .eagerlyEvaluate(nullptr);
    kj::Vector<kj::byte> gotThere, gotBack;
    CHECK(meeting.readAll(*channel.far, gotThere) == BulkEnd::FINISHED);
    CHECK(meeting.readAll(*channel.near, gotBack) == BulkEnd::FINISHED);
    CHECK((gotThere.asPtr() == there.asPtr()));
    CHECK((gotBack.asPtr() == back.asPtr()));
    writing.wait(meeting.lab.waitScope);
    answering.wait(meeting.lab.waitScope);
  }
}

TEST_CASE("a mebibyte in records of one byte arrives exactly, and holds few blocks") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::GUEST);
  auto sent = randomBytes(meeting.lab, SANITIZED ? size_t(64) << 10 : size_t(1) << 20);
  auto writing = writeBytewise(*channel.near, sent).then([&]() { channel.near->finish(); }).eagerlyEvaluate(nullptr);
  kj::Vector<kj::byte> got;
  CHECK(meeting.readAll(*channel.far, got) == BulkEnd::FINISHED);
  CHECK((got.asPtr() == sent.asPtr()));
  CHECK(meeting.lab.pool.freeBlocks() < 8);
}

TEST_CASE("small records that wait for a full pipe do not hold blocks") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::GUEST);
  meeting.lab.settle();
  meeting.lab.wire.toHost.capacity = 1;  // a peer that takes a byte at a time
  auto sent = randomBytes(meeting.lab, 5000);
  auto writing = writeBytewise(*channel.near, sent).eagerlyEvaluate(nullptr);
  for (int i = 0; i < 3000; ++i) {
    meeting.lab.settle();
    meeting.lab.wire.toHost.drop();
  }
  CHECK(meeting.lab.pool.blocksOut() <= 2);
}

TEST_CASE("each direction ends by itself") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::HOST);
  channel.near->finish();
  CHECK((meeting.next(*channel.far).get<BulkEnd>() == BulkEnd::FINISHED));
  CHECK((meeting.next(*channel.far).get<BulkEnd>() == BulkEnd::FINISHED));  // and stays so
  CHECK(channel.near->sendable() == 0);
  CHECK(!channel.near->whenSendable().wait(meeting.lab.waitScope));
  // The other direction still carries bytes.
  auto sent = randomBytes(meeting.lab, 200000);
  auto writing = channel.far->write(sent).eagerlyEvaluate(nullptr);
  kj::Vector<kj::byte> got;
  while (got.size() < sent.size()) got.addAll(meeting.next(*channel.near).get<BulkChunk>().bytes());
  CHECK((got.asPtr() == sent.asPtr()));
  CHECK(writing.wait(meeting.lab.waitScope));
  channel.far->finish();
  CHECK((meeting.next(*channel.near).get<BulkEnd>() == BulkEnd::FINISHED));
}

TEST_CASE("an end may overtake the offer, and an offer may be refused, without harm") {
  for (auto opener : BOTH) {
    Meeting meeting;
    auto& acceptor = meeting.sessions.at(other(opener)).bulk();
    auto finished = KJ_ASSERT_NONNULL(meeting.sessions.at(opener).bulk().open());
    finished.channel->finish();
    auto dropped = KJ_ASSERT_NONNULL(meeting.sessions.at(opener).bulk().open());
    dropped.channel = nullptr;
    auto refused = KJ_ASSERT_NONNULL(meeting.sessions.at(opener).bulk().open());
    meeting.lab.settle();
    refused.channel = nullptr;
    meeting.lab.settle();
    REQUIRE(!meeting.sessions.guest->isOver());
    REQUIRE(!meeting.sessions.host->isOver());

    // In any order: the later number first.
    auto lateDropped = acceptor.accept(dropped.offer);
    CHECK((meeting.next(*lateDropped.get<kj::Own<BulkChannel>>()).get<BulkEnd>() == BulkEnd::RESET));
    auto lateFinished = acceptor.accept(finished.offer);
    auto& channel = *lateFinished.get<kj::Own<BulkChannel>>();
    CHECK((meeting.next(channel).get<BulkEnd>() == BulkEnd::FINISHED));
    auto sent = randomBytes(meeting.lab, 1000);
    auto writing = channel.write(sent).eagerlyEvaluate(nullptr);
    CHECK((meeting.next(*finished.channel).get<BulkChunk>().bytes() == sent.asPtr()));
  }
}

TEST_CASE("reset drops what is unsent, and both ends see RESET") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::GUEST);
  meeting.lab.settle();
  meeting.lab.wire.toHost.capacity = 1000;
  auto sent = randomBytes(meeting.lab, 300000);
  auto writing = channel.near->write(sent).eagerlyEvaluate(nullptr);
  meeting.lab.wire.toHost.setStalled(true);
  meeting.lab.settle();
  auto reading = channel.near->read().eagerlyEvaluate(nullptr);
  channel.near->reset();
  channel.near->reset();
  CHECK(!writing.wait(meeting.lab.waitScope));
  CHECK((reading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::RESET));
  meeting.lab.wire.toHost.setStalled(false);
  kj::Vector<kj::byte> got;
  CHECK(meeting.readAll(*channel.far, got) == BulkEnd::RESET);
  CHECK(got.size() < 70000);  // one record was being written
  CHECK(channel.far->sendable() == 0);
  CHECK(!channel.far->write(sent).wait(meeting.lab.waitScope));
}

TEST_CASE("a handle that is dropped before finish resets the channel, for reader and writer") {
  for (auto dropper : BOTH) {
    Meeting meeting;
    Channel channel(meeting.sessions, dropper);
    auto sent = randomBytes(meeting.lab, 200000);
    auto writing = channel.far->write(sent).eagerlyEvaluate(nullptr);
    auto reading = channel.far->read().eagerlyEvaluate(nullptr);
    meeting.lab.settle();
    channel.near = nullptr;
    CHECK(!writing.wait(meeting.lab.waitScope));
    CHECK((reading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::RESET));
  }
}

TEST_CASE("a handle that is dropped after finish still delivers all its bytes") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::HOST);
  meeting.lab.settle();
  auto& wire = meeting.lab.wire.toGuest;
  wire.capacity = 1000;
  auto sent = randomBytes(meeting.lab, 60000);
  auto writing = channel.near->write(sent).eagerlyEvaluate(nullptr);
  CHECK(writing.wait(meeting.lab.waitScope));
  channel.near->finish();
  channel.near = nullptr;
  kj::Vector<kj::byte> got;
  CHECK(meeting.readAll(*channel.far, got) == BulkEnd::FINISHED);
  CHECK((got.asPtr() == sent.asPtr()));
  // The direction back has nobody who would read it.
  meeting.lab.settle();
  CHECK(!channel.far->write(sent).wait(meeting.lab.waitScope));
  CHECK(meeting.sessions.host->bulk().openChannels() == 0);
}

TEST_CASE("a lingering channel whose peer resets it, or whose session ends, is forgotten") {
  for (bool byReset : {true, false}) {
    Meeting meeting;
    Channel channel(meeting.sessions, Role::GUEST);
    meeting.lab.settle();
    meeting.lab.wire.toHost.capacity = 10;
    meeting.lab.wire.toHost.setStalled(true);
    auto first = channel.near->newBlock();
    memset(first.space().begin(), 1, 50000);
    channel.near->send(kj::mv(first), 50000);
    auto second = channel.near->newBlock();
    memset(second.space().begin(), 2, 10000);
    channel.near->send(kj::mv(second), 10000);
    channel.near->finish();
    channel.near = nullptr;
    meeting.lab.settle();
    CHECK(meeting.sessions.guest->bulk().openChannels() == 1);
    if (byReset) {
      channel.far->reset();
    } else {
      meeting.lab.wire.toGuest.end();
    }
    meeting.lab.settle();
    CHECK(meeting.sessions.guest->bulk().openChannels() == 0);
    CHECK(meeting.sessions.guest->isOver() == !byReset);
  }
}

TEST_CASE("promises of a dropped channel resolve") {
  Meeting meeting;
  {
    Channel channel(meeting.sessions, Role::GUEST);
    auto reading = channel.near->read();
    channel.near->finish();
    meeting.lab.settle();
    channel.near = nullptr;
    CHECK((reading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::RESET));
  }
  {
    // With bytes that linger.
    Channel channel(meeting.sessions, Role::GUEST);
    meeting.lab.settle();
    meeting.lab.wire.toHost.setStalled(true);
    meeting.lab.wire.toHost.capacity = 10;
    auto reading = channel.near->read();
    auto sent = randomBytes(meeting.lab, 100000);
    auto writing = channel.near->write(sent);
    channel.near->finish();
    channel.near = nullptr;
    CHECK((reading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::RESET));
    CHECK(!writing.wait(meeting.lab.waitScope));
  }
}

TEST_CASE("chunks may be destroyed after their channel and after their session") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::GUEST);
  auto sent = randomBytes(meeting.lab, 50000);
  channel.near->write(sent).wait(meeting.lab.waitScope);
  auto first = meeting.next(*channel.far);
  REQUIRE(first.is<BulkChunk>());
  channel.near->finish();
  channel.near = nullptr;
  channel.far = nullptr;
  meeting.lab.settle();
  CHECK((first.get<BulkChunk>().bytes() == sent.asPtr()));
  first = BulkEnd::RESET;  // after the channel

  Channel again(meeting.sessions, Role::HOST);
  again.near->write(sent).wait(meeting.lab.waitScope);
  auto second = meeting.next(*again.far);
  meeting.sessions.guest = nullptr;
  meeting.sessions.host = nullptr;
  CHECK((second.get<BulkChunk>().bytes() == sent.asPtr()));
  second = BulkEnd::RESET;  // after the session, before the channel
  CHECK((meeting.next(*again.far).get<BulkEnd>() == BulkEnd::SESSION_ENDED));
}

TEST_CASE("the session's end resolves everybody who waits, and everybody who comes later") {
  for (int how = 0; how < 4; ++how) {
    Meeting meeting;
    Channel channel(meeting.sessions, Role::GUEST);
    auto sent = randomBytes(meeting.lab, 300000);
    auto nearReading = channel.near->read().eagerlyEvaluate(nullptr);
    auto farReading = channel.far->read().eagerlyEvaluate(nullptr);
    auto unaccepted = KJ_ASSERT_NONNULL(meeting.sessions.guest->bulk().open());
    auto waiting = unaccepted.channel->whenSendable().eagerlyEvaluate(nullptr);
    auto writing = unaccepted.channel->write(nullptr).eagerlyEvaluate(nullptr);
    meeting.lab.settle();
    auto& guest = *meeting.sessions.guest;
    if (how == 0) guest.close(CloseCode::GOODBYE).wait(meeting.lab.waitScope);
    if (how == 1) meeting.lab.wire.toGuest.end();
    if (how == 2) meeting.sessions.host->close(CloseCode::INTERNAL).wait(meeting.lab.waitScope);
    if (how == 3) meeting.sessions.host = nullptr;
    meeting.lab.settle();
    CHECK((nearReading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::SESSION_ENDED));
    CHECK((farReading.wait(meeting.lab.waitScope).get<BulkEnd>() == BulkEnd::SESSION_ENDED));
    CHECK(!waiting.wait(meeting.lab.waitScope));
    CHECK(!channel.near->write(sent).wait(meeting.lab.waitScope));
    CHECK(channel.near->sendable() == 0);
    channel.near->finish();
    channel.near->reset();

    auto later = KJ_ASSERT_NONNULL(guest.bulk().open());
    CHECK((meeting.next(*later.channel).get<BulkEnd>() == BulkEnd::SESSION_ENDED));
    CHECK(!later.channel->whenSendable().wait(meeting.lab.waitScope));
    auto accepted = guest.bulk().accept({1000, 65536});
    CHECK((meeting.next(*accepted.get<kj::Own<BulkChannel>>()).get<BulkEnd>() == BulkEnd::SESSION_ENDED));
  }
}

// Offers -----------------------------------------------------------------------------------------------------------

TEST_CASE("who waits for a channel to break is told at once, before what lies unread, and of no orderly end") {
  enum How { PEER_RESETS, OWN_RESET, HANDLE_GONE, SESSION_ENDS, BOTH_FINISH };
  for (auto how : {PEER_RESETS, OWN_RESET, HANDLE_GONE, SESSION_ENDS, BOTH_FINISH}) {
    CAPTURE(int(how));
    Meeting m;
    Channel channel(m.sessions, Role::HOST);
    auto broken = channel.near->whenBroken();
    channel.far->write(kj::StringPtr("unread").asBytes()).wait(m.lab.waitScope);
    m.lab.settle();
    CHECK_FALSE(broken.poll(m.lab.waitScope));
    if (how == PEER_RESETS) channel.far->reset();
    if (how == OWN_RESET) channel.near->reset();
    if (how == HANDLE_GONE) channel.near = nullptr;
    if (how == SESSION_ENDS) m.sessions.host = nullptr;
    if (how == BOTH_FINISH) {
      channel.near->finish();
      channel.far->finish();
    }
    m.lab.settle();
    if (how == BOTH_FINISH) {
      CHECK_FALSE(broken.poll(m.lab.waitScope));
      continue;
    }
    auto expected = how == SESSION_ENDS ? BulkEnd::SESSION_ENDED : BulkEnd::RESET;
    REQUIRE(broken.poll(m.lab.waitScope));
    CHECK(broken.wait(m.lab.waitScope) == expected);
    if (how != HANDLE_GONE) CHECK(channel.near->whenBroken().wait(m.lab.waitScope) == expected);
    if (how == PEER_RESETS) CHECK(m.next(*channel.near).is<BulkChunk>());
  }
}

TEST_CASE("an offer with a number that is not the opener's to give is refused") {
  Meeting meeting;
  auto& host = meeting.sessions.host->bulk();
  auto& guest = meeting.sessions.guest->bulk();
  CHECK((host.accept({0, 1000}).get<BulkError>() == BulkError::BAD_NUMBER));
  CHECK((guest.accept({0, 1000}).get<BulkError>() == BulkError::BAD_NUMBER));
  CHECK((host.accept({2, 1000}).get<BulkError>() == BulkError::BAD_NUMBER));   // the host's own
  CHECK((guest.accept({1, 1000}).get<BulkError>() == BulkError::BAD_NUMBER));  // the guest's own
  auto live = host.accept({1, 1000});
  REQUIRE(live.is<kj::Own<BulkChannel>>());
  CHECK((host.accept({1, 1000}).get<BulkError>() == BulkError::BAD_NUMBER));
}

TEST_CASE("an offer with more credit than a window can have is refused") {
  Meeting meeting;
  auto& host = meeting.sessions.host->bulk();
  CHECK((host.accept({1, limits::BULK_WINDOW_MAX + 1}).get<BulkError>() == BulkError::CREDIT_OVERFLOW));
  CHECK((host.accept({1, 0xffffffffu}).get<BulkError>() == BulkError::CREDIT_OVERFLOW));
  auto most = host.accept({1, limits::BULK_WINDOW_MAX});
  REQUIRE(most.is<kj::Own<BulkChannel>>());
  CHECK(most.get<kj::Own<BulkChannel>>()->sendable() == MAX_BULK_DATA_BYTES);
  auto none = host.accept({3, 0});
  CHECK(none.get<kj::Own<BulkChannel>>()->sendable() == 0);
}

TEST_CASE("there are at most 4096 channels, at either end") {
  Meeting meeting;
  auto& guest = meeting.sessions.guest->bulk();
  auto& host = meeting.sessions.host->bulk();
  kj::Vector<kj::Own<BulkChannel>> channels;
  for (unsigned i = 0; i < limits::MAX_BULK_CHANNELS; ++i) {
    auto opened = KJ_ASSERT_NONNULL(guest.open());
    auto accepted = host.accept(opened.offer);
    channels.add(kj::mv(opened.channel));
    channels.add(kj::mv(accepted.get<kj::Own<BulkChannel>>()));
  }
  CHECK((guest.open() == nullptr));
  CHECK((host.open() == nullptr));
  CHECK((host.accept({1000001, 1000}).get<BulkError>() == BulkError::TOO_MANY));
  CHECK(guest.openChannels() == limits::MAX_BULK_CHANNELS);
  meeting.lab.settle();
  CHECK(!meeting.sessions.host->isOver());
  channels.clear();
  meeting.lab.settle();
  CHECK(guest.openChannels() == 0);
  CHECK(host.openChannels() == 0);
  CHECK(guest.open() != nullptr);
}

TEST_CASE("ten thousand channels that were opened and closed leave nothing behind") {
  Meeting meeting;
  constexpr int COUNT = SANITIZED ? 1000 : 10000;
  kj::byte data[100] = {};
  for (int i = 0; i < COUNT; ++i) {
    Channel channel(meeting.sessions, i % 2 == 0 ? Role::GUEST : Role::HOST);
    if (i % 5 == 0) {
      channel.near->write(data).wait(meeting.lab.waitScope);
      channel.near->finish();
      channel.far->finish();
    }
    if (i % 5 == 1) channel.near->reset();
    if (i % 5 == 2) channel.near = nullptr;
    if (i % 5 == 3) {
      // A chunk that is held over the end.
      auto writing = channel.far->write(data).eagerlyEvaluate(nullptr);
      auto chunk = meeting.next(*channel.near);
      channel.near = nullptr;
    }
    meeting.lab.settle();
  }
  meeting.lab.settle();
  CHECK(meeting.sessions.guest->bulk().openChannels() == 0);
  CHECK(meeting.sessions.host->bulk().openChannels() == 0);
  CHECK(meeting.lab.pool.blocksOut() == 0);
  CHECK(!meeting.sessions.guest->isOver());
  // And the share of the link's windows is free again.
  auto opened = KJ_ASSERT_NONNULL(meeting.sessions.guest->bulk().open());
  CHECK(opened.offer.credit == limits::BULK_WINDOW_FIRST);
}

// Windows ----------------------------------------------------------------------------------------------------------

// Sends what the credit allows into a channel nobody reads; how much that was, with the records' cost.
size_t fillWindow(Meeting& meeting, BulkChannel& sender) {
  size_t total = 0;
  for (;;) {
    meeting.lab.settle();
    size_t n = sender.sendable();
    if (n == 0) return total;
    sender.send(sender.newBlock(), n);
    total += n + limits::BULK_RECORD_COST;
  }
}

// Reads all that has arrived.
void drain(Meeting& meeting, BulkChannel& receiver) {
  for (;;) {
    auto next = receiver.read();
    if (!next.poll(meeting.lab.waitScope)) return;
    next.wait(meeting.lab.waitScope);
  }
}

TEST_CASE("a reader that stops is sent its window and not a byte more") {
  for (auto sender : BOTH) {
    Meeting meeting;
    Channel channel(meeting.sessions, sender);
    CHECK(fillWindow(meeting, *channel.near) == limits::BULK_WINDOW_FIRST);
    CHECK(fillWindow(meeting, *channel.far) == limits::BULK_WINDOW_FIRST);
  }
}

TEST_CASE("a window doubles with use up to 1 MiB, and falls back when it was idle") {
  Meeting meeting;
  Channel channel(meeting.sessions, Role::GUEST);
  size_t expected = limits::BULK_WINDOW_FIRST;
  for (int round = 0; round < 8; ++round) {
    CHECK(fillWindow(meeting, *channel.near) == expected);
    drain(meeting, *channel.far);
    expected = std::min<size_t>(2 * expected, limits::BULK_WINDOW_MAX);
  }
  CHECK(expected == limits::BULK_WINDOW_MAX);
  meeting.lab.advance(2 * limits::BULK_WINDOW_IDLE);
  // The credit that is out cannot be taken back; what is granted after it follows the small window again.
  size_t outstanding = fillWindow(meeting, *channel.near);
  CHECK(outstanding == limits::BULK_WINDOW_MAX);
  meeting.lab.advance(2 * limits::BULK_WINDOW_IDLE);
  auto one = meeting.next(*channel.far);
  one = BulkEnd::RESET;
  meeting.lab.advance(2 * limits::BULK_WINDOW_IDLE);
  drain(meeting, *channel.far);
  size_t after = fillWindow(meeting, *channel.near);
  CHECK(after < limits::BULK_WINDOW_MAX);
}

// Lets a channel's window grow to the most there is.
void grow(Meeting& meeting, Channel& channel) {
  for (int round = 0; round < 5; ++round) {
    fillWindow(meeting, *channel.near);
    drain(meeting, *channel.far);
  }
}

TEST_CASE("the windows of a link together stay below 16 MiB, also when they grow one after the other") {
  Meeting meeting;
  kj::Vector<Channel> channels;
  constexpr size_t COUNT = 40;
  for (size_t i = 0; i < COUNT; ++i) {
    channels.add(meeting.sessions, Role::GUEST);
    grow(meeting, channels.back());
    // Idle, then a record: its window falls back, while its credit is out.
    meeting.lab.advance(2 * limits::BULK_WINDOW_IDLE);
    auto block = channels.back().near->newBlock();
    channels.back().near->send(kj::mv(block), 1);
    meeting.lab.settle();
    drain(meeting, *channels.back().far);
  }
  size_t total = 0;
  for (auto& channel : channels) total += fillWindow(meeting, *channel.near);
  CHECK(total <= limits::BULK_WINDOWS_PER_LINK + COUNT * limits::BULK_WINDOW_SMALL);
}

TEST_CASE("a thousand readers that stopped hold 16 MiB and 8 KiB each at most") {
  Meeting meeting;
  meeting.lab.wire.toHost.capacity = size_t(1) << 20;
  constexpr size_t COUNT = 1000;
  kj::Vector<Channel> channels;
  size_t total = 0;
  for (size_t i = 0; i < COUNT; ++i) {
    channels.add(meeting.sessions, Role::GUEST);
    total += fillWindow(meeting, *channels.back().near);
  }
  CHECK(total > limits::BULK_WINDOWS_PER_LINK);
  CHECK(total <= limits::BULK_WINDOWS_PER_LINK + COUNT * limits::BULK_WINDOW_SMALL);
  CHECK(meeting.lab.pool.blocksOut() * BlockPool::BLOCK_BYTES <= limits::BULK_WINDOWS_PER_LINK);

  // And nobody else waits for them.
  meeting.sessions.guest->ping().wait(meeting.lab.waitScope);
  meeting.sessions.host->ping().wait(meeting.lab.waitScope);
  RpcConnection guest(*meeting.sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*meeting.sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  auto request = guest.peer().castAs<Echo>().pingRequest();
  request.setNumber(5);
  CHECK(request.send().wait(meeting.lab.waitScope).getNumber() == 5);
  Channel one(meeting.sessions, Role::GUEST);
  auto sent = randomBytes(meeting.lab, 100000);
  auto writing = one.near->write(sent).then([&](bool) { one.near->finish(); }).eagerlyEvaluate(nullptr);
  kj::Vector<kj::byte> got;
  CHECK(meeting.readAll(*one.far, got) == BulkEnd::FINISHED);
  CHECK((got.asPtr() == sent.asPtr()));
}

TEST_CASE("fifty channels that send at once get the same share within a fifth") {
  Meeting meeting;
  constexpr size_t COUNT = 50;
  kj::Vector<Channel> channels;
  for (size_t i = 0; i < COUNT; ++i) channels.add(meeting.sessions, Role::GUEST);
  auto sent = kj::heapArray<kj::byte>(size_t(4) << 20);
  memset(sent.begin(), 7, sent.size());
  kj::Vector<kj::Promise<void>> work;
  std::vector<size_t> received(COUNT);
  size_t total = 0;
  kj::Function<void()> whenEnough = []() {};
  kj::Function<kj::Promise<void>(size_t)> receive = [&](size_t i) -> kj::Promise<void> {
    return channels[i].far->read().then([&, i](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
      if (next.is<BulkEnd>()) return kj::READY_NOW;
      received[i] += next.get<BulkChunk>().bytes().size();
      total += next.get<BulkChunk>().bytes().size();
      whenEnough();
      return receive(i);
    });
  };
  for (size_t i = 0; i < COUNT; ++i) {
    work.add(channels[i].near->write(sent).ignoreResult().eagerlyEvaluate(nullptr));
    work.add(receive(i).eagerlyEvaluate(nullptr));
  }
  const size_t enough = size_t(SANITIZED ? 20 : 60) << 20;
  auto reached = kj::newPromiseAndFulfiller<void>();
  whenEnough = [&]() {
    if (total >= enough) reached.fulfiller->fulfill();
  };
  reached.promise.wait(meeting.lab.waitScope);
  size_t least = *std::min_element(received.begin(), received.end());
  size_t most = *std::max_element(received.begin(), received.end());
  CHECK(double(most - least) <= 0.2 * double(total) / COUNT);
}

TEST_CASE("a link that takes everything leaves the loop to others behind a few records") {
  Meeting meeting;
  auto& wire = meeting.lab.wire.toHost;
  constexpr size_t COUNT = 50;
  wire.capacity = 2 * COUNT * MAX_FRAME_BYTES;
  kj::Vector<Channel> channels;
  for (size_t i = 0; i < COUNT; ++i) channels.add(meeting.sessions, Role::GUEST);
  meeting.lab.settle();
  uint64_t before = wire.written();
  for (auto& channel : channels) channel.near->send(channel.near->newBlock(), MAX_BULK_DATA_BYTES);
  meeting.sessions.host->ping().wait(meeting.lab.waitScope);
  CHECK(wire.written() - before <= 4 * limits::WRITE_BURST_BYTES);
  meeting.lab.settle();
  CHECK(wire.written() - before > COUNT * MAX_BULK_DATA_BYTES);
}

TEST_CASE("RPC and PING pass a bulk stream that fills the link") {
  Meeting meeting;
  RpcConnection guest(*meeting.sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  RpcConnection host(*meeting.sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {});
  meeting.lab.settle();
  Channel channel(meeting.sessions, Role::GUEST);
  auto& wire = meeting.lab.wire.toHost;
  wire.capacity = 1000;
  auto sent = kj::heapArray<kj::byte>(size_t(1) << 20);
  memset(sent.begin(), 7, sent.size());
  auto writing = channel.near->write(sent).eagerlyEvaluate(nullptr);
  meeting.lab.settle();
  wire.setStalled(true);
  meeting.lab.settle();
  auto request = guest.peer().castAs<Echo>().pingRequest();
  request.setNumber(5);
  auto call = request.send().then([](auto) {}).eagerlyEvaluate(nullptr);
  auto ping = meeting.sessions.guest->ping().then([](auto) {}).eagerlyEvaluate(nullptr);
  uint64_t before = wire.written();
  wire.setStalled(false);
  ping.wait(meeting.lab.waitScope);
  CHECK(wire.written() - before < 2 * MAX_FRAME_BYTES + 2000);
  call.wait(meeting.lab.waitScope);
  CHECK(wire.written() - before < 4 * MAX_FRAME_BYTES + 4000);
}

}  // namespace
}  // namespace postern
