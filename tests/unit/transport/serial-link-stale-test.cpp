#include <doctest/doctest.h>
#include <kj/debug.h>
#include <malloc.h>

#include "protocol/limits.h"
#include "tests/support/serial-probe.h"

using namespace postern;
using namespace postern::test;

// Stale bytes, full pipes, peers that do not read, and what a link holds in memory meanwhile.

namespace {

constexpr Role ROLES[] = {Role::GUEST, Role::HOST};

// Two ends start, with `stale` already lying in front of `reader`. Within two round trips they are UP, without a timer.
void startBehind(kj::ArrayPtr<const kj::byte> stale, Role reader) {
  SerialStage stage(largeScript());
  stage.into(reader).capacity = stale.size() + 4096;
  stage.into(reader).inject(stale);
  stage.wire.toHost.setStalled(true);
  stage.wire.toGuest.setStalled(true);
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  stage.run();
  stage.roundTrip();
  stage.roundTrip();
  CHECK(stage.bothUp());
  stage.wire.toHost.setStalled(false);
  stage.wire.toGuest.setStalled(false);
  stage.run();
  CHECK(stage.bothDone());
  CHECK(stage.end(reader).sessions == 1);
}

// A whole earlier session as it stood on the wire, towards `reader`.
kj::Array<kj::byte> recordedSession(Role reader) {
  SerialStage stage(largeScript(), 99);
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  auto& recording = stage.end(other(reader)).pipe.recording;
  recording.emplace();
  stage.run();
  REQUIRE(stage.bothDone());
  return KJ_ASSERT_NONNULL(recording).releaseAsArray();
}

}  // namespace

TEST_CASE("a mebibyte of random bytes in front is skipped") {
  for (Role reader : ROLES) startBehind(randomBytes(1 << 20, 5), reader);
}

TEST_CASE("a flood of random bytes in front, beyond what one turn of the loop reads, is skipped") {
  for (Role reader : ROLES) startBehind(randomBytes(6 << 20, 6), reader);
}

TEST_CASE("a flood does not keep others on the loop from their turn, while not UP and while UP") {
  SerialProbe probe;
  probe.wire.toHost.inject(randomBytes(2 << 20, 1));
  auto accepting = probe.link.accept();
  CHECK(probe.pipe.bytesRead >= limits::READ_BYTES);
  CHECK(probe.pipe.bytesRead < limits::READ_BYTES + 4096);
  // What was heard is answered all the same.
  CHECK(probe.heard().size() == 1);
  accepting = kj::Promise<kj::OneOf<kj::Own<FrameLink>, LinkEnd>>(nullptr);

  probe.wire.toHost.drop();
  probe.accept();
  probe.bringUp(1);
  uint64_t before = probe.pipe.bytesRead;
  auto foreign = frameOf(FrameKind::RECORD, {9, 8, 7, 6}, filled(200, 1));
  for (unsigned i = 0; i < (2 << 20) / 208; ++i) probe.wire.toHost.inject(foreign);
  for (unsigned turn = 1; turn <= 3; ++turn) {
    CHECK(probe.nothingToRead());
    CHECK(probe.pipe.bytesRead - before < turn * (limits::READ_BYTES + 4096));
    CHECK(probe.session().whenReadable().poll(probe.waitScope));
  }
}

TEST_CASE("a mebibyte of well-formed frames of an earlier session in front is skipped") {
  for (Role reader : ROLES) {
    kj::Vector<kj::byte> stale;
    while (stale.size() < (1 << 20)) {
      stale.addAll(frameOf(FrameKind::RECORD, {9, 8, 7, 6}, randomBytes(65535, stale.size())));
      stale.addAll(frameOf(FrameKind::HANDSHAKE, {9, 8, 7, 6}, randomBytes(48, stale.size())));
    }
    startBehind(stale, reader);
  }
}

// T31
TEST_CASE("an earlier session in front, its SYNCs included and cut anywhere, is not taken for this one") {
  for (Role reader : ROLES) {
    auto session = recordedSession(reader);
    REQUIRE(session.size() > 65'000);
    startBehind(session, reader);
    for (size_t cut = 1; cut < 600; cut += 7) {
      startBehind(session.slice(cut, 2000), reader);
      startBehind(session.slice(0, cut), reader);
    }
  }
}

// T31
TEST_CASE("an old session replayed into a session that is UP is not accepted, whole or in part") {
  for (Role reader : ROLES) {
    auto old = recordedSession(reader);
    for (size_t from = 0; from < 700; from += 11) {
      SerialStage stage;
      stage.start(Role::HOST);
      stage.start(Role::GUEST);
      stage.run();
      REQUIRE(stage.bothDone());
      stage.into(reader).inject(old.slice(from, from + 1500));
      stage.run();
      for (unsigned i = 0; i < 12; ++i) stage.advance(kj::SECONDS);
      CAPTURE(from);
      // What remains unfinished of a last frame swallows what follows it: the session's PING would find that out.
      if (!stage.bothDone()) {
        stage.end(reader).closeSession();
        stage.run();
      }
      REQUIRE(stage.bothDone());
    }
  }
}

// T33
TEST_CASE("both pipes full of an old session when both ends start again is no deadlock") {
  for (size_t capacity : {size_t(137), size_t(4096), size_t(256) << 10}) {
    SerialStage stage;
    for (Role role : ROLES) {
      stage.into(role).capacity = capacity;
      stage.into(role).inject(randomBytes(capacity, capacity));
    }
    stage.start(Role::HOST);
    stage.start(Role::GUEST);
    stage.run();
    CHECK(stage.bothDone());
  }
}

TEST_CASE("both pipes full when one end starts again is no deadlock") {
  for (Role victim : ROLES) {
    SerialStage stage(largeScript());
    stage.wire.toHost.capacity = 300;
    stage.wire.toGuest.capacity = 300;
    stage.start(Role::HOST);
    stage.start(Role::GUEST);
    stage.end(victim).pipe.readsLeft = 1000;
    stage.run();
    stage.kill(victim);
    stage.into(victim).inject(randomBytes(300, 1));
    stage.outOf(victim).inject(randomBytes(300, 2));
    stage.start(victim);
    stage.run();
    CHECK(stage.bothDone());
  }
}

TEST_CASE("a host that does not read for a minute finds one SYNC's worth of news and not a backlog that matters") {
  for (bool wasUp : {false, true}) {
    SerialStage stage;
    stage.wire.toHost.capacity = 4096;
    if (wasUp) {
      stage.start(Role::HOST);
      stage.start(Role::GUEST);
      stage.run();
      stage.kill(Role::HOST);
      stage.kill(Role::GUEST);
    }
    stage.start(Role::GUEST);
    stage.run();
    for (unsigned i = 0; i < 60; ++i) stage.advance(kj::SECONDS);
    CHECK(!stage.guest().isUp());
    // At 0, 0.25, 0.75, 1.75, 3.75, 7.75 s and then every 5 s.
    CHECK(stage.wire.toHost.lying() <= 17 * SYNC_BYTES + 1000);
    stage.start(Role::HOST);
    stage.run();
    CHECK(stage.bothDone());
    CHECK(stage.guest().sessions == 1);
  }
}

TEST_CASE("SYNCs repeated for a day into a pipe that nobody reads fill it, and a reader still gets UP at once") {
  SerialStage stage;
  stage.wire.toHost.capacity = 2000;
  stage.start(Role::GUEST);
  stage.run();
  for (unsigned i = 0; i < 24 * 720; ++i) stage.advance(5 * kj::SECONDS);
  CHECK(stage.wire.toHost.lying() == 2000);
  stage.start(Role::HOST);
  stage.run();
  CHECK(stage.bothDone());
  CHECK(stage.host().sessions == 1);
}

TEST_CASE("a SYNC that is lost is repeated by the clock") {
  for (Role late : ROLES) {
    SerialStage stage;
    stage.wire.toHost.setStalled(true);
    stage.wire.toGuest.setStalled(true);
    stage.start(Role::HOST);
    stage.start(Role::GUEST);
    stage.run();
    stage.wire.toHost.drop();
    stage.wire.toGuest.drop();
    stage.wire.toHost.setStalled(false);
    stage.wire.toGuest.setStalled(false);
    stage.run();
    CHECK(!stage.end(late).isUp());
    stage.advance(limits::SYNC_RETRY_FIRST);
    CHECK(stage.bothDone());
  }
}

TEST_CASE("a device that loses its peer and a run of bytes on both sides gives a new session") {
  SerialStage stage(largeScript());
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  stage.host().pipe.readsLeft = 5000;
  stage.run();
  // The host's process dies; QEMU tells the guest, and what was under way is gone.
  stage.kill(Role::HOST);
  stage.wire.toGuest.drop();
  stage.wire.toHost.drop();
  stage.wire.toGuest.setConnected(false);
  stage.wire.toHost.setConnected(false);
  stage.run();
  CHECK(!stage.guest().isUp());
  CHECK((stage.guest().ends.back() == LinkEnd::PEER_RESTARTED));
  stage.advance(60 * kj::SECONDS);
  stage.wire.toGuest.setConnected(true);
  stage.wire.toHost.setConnected(true);
  stage.start(Role::HOST);
  stage.run();
  CHECK(stage.bothDone());
}

// T21
TEST_CASE("a link holds less than 4 KiB until authentication, whatever an unauthenticated peer sends") {
  size_t before = mallinfo2().uordblks;
  if (before == 0) return;  // a sanitizer's allocator does not count here

  struct Case {
    kj::Array<kj::byte> beforeUp;
    kj::Array<kj::byte> afterUp;
  };
  Case cases[] = {
      {nullptr, nullptr},
      {randomBytes(100'000, 1), randomBytes(100'000, 2)},
      {kj::heapArray(syncOf(guestHello(1)).slice(0, 130)), kj::heapArray(syncOf(guestHello(1)).slice(0, 130))},
      {nullptr, filled(100'000, 0)},
  };
  for (auto& c : cases) {
    kj::EventLoop loop;
    kj::WaitScope waitScope(loop);
    kj::TimerImpl timer(kj::origin<kj::TimePoint>());
    ReadScratch scratch;
    FakeWire wire;
    MortalPipe pipe(wire.toHost, wire.toGuest);
    TestRandom random(1);
    kj::Own<FrameLink> connection;

    size_t base = mallinfo2().uordblks;
    auto link = kj::heap<SerialLink>(pipe, helloOf(Role::HOST), random, timer, scratch);
    auto accepting = link->accept();
    CHECK(!accepting.poll(waitScope));
    auto own = parseSyncs(wire.toGuest.take(), Role::GUEST)[0];
    auto sync = syncOf(guestHello(1, own.epoch()));

    wire.toHost.inject(c.beforeUp);
    CHECK(!accepting.poll(waitScope));
    wire.toHost.drop();
    wire.toGuest.drop();
    CHECK(mallinfo2().uordblks - base < 4096 + 1024);  // and the promises and the fake's own

    wire.toHost.inject(joined({sync,
                               frameOf(FrameKind::HANDSHAKE, linkTag(own.nonce, guestHello(1).nonce),
                                       filled(limits::MAX_HANDSHAKE_BODY_BYTES, 1)),
                               c.afterUp}));
    auto accepted = accepting.wait(waitScope);
    connection = kj::mv(accepted.get<kj::Own<FrameLink>>());
    accepted = LinkEnd::CLOSED;
    auto item = connection->readFrame();
    CHECK(item.is<Frame>());
    connection->park();
    wire.toHost.drop();
    wire.toGuest.drop();
    CHECK(mallinfo2().uordblks - base < 4096);
  }
}

TEST_CASE("an idle link holds no frame's buffer after a long frame is done") {
  size_t before = mallinfo2().uordblks;
  if (before == 0) return;  // a sanitizer's allocator does not count here
  SerialProbe probe;
  probe.accept();
  probe.bringUp(1);
  probe.session().authenticated();
  auto frame = frameOf(FrameKind::RECORD, probe.tag(), filled(60'000, 1));
  size_t idle = mallinfo2().uordblks;
  probe.send(frame.slice(0, 100));
  CHECK(probe.nothingToRead());
  CHECK(mallinfo2().uordblks - idle > 50'000);
  probe.send(frame.slice(100, frame.size()));
  CHECK(probe.frame().body.size() == 60'000);
  CHECK(probe.nothingToRead());
  CHECK(mallinfo2().uordblks - idle < 2048);
}
