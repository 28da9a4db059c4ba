#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "tests/support/serial-probe.h"

using namespace postern;
using namespace postern::test;

// Frames of a session that is UP: which are delivered, how they are written, and what ends it.

namespace {

bool holds(const Frame& frame, FrameKind kind, kj::ArrayPtr<const kj::byte> body) {
  return frame.kind == kind && frame.body.asConst() == body;
}

PipeResult write(FrameLink& link, kj::ArrayPtr<const kj::byte> bytes) {
  return link.write(kj::arrayPtr(&bytes, 1));
}

struct UpProbe : SerialProbe {
  UpProbe() {
    accept();
    bringUp(1);
  }
};

}  // namespace

TEST_CASE("frames of one read are handed out one by one and survive park() while others use the scratch") {
  UpProbe probe;
  auto one = randomBytes(100, 1), two = randomBytes(0, 2), three = randomBytes(31, 3);
  probe.send(joined({frameOf(FrameKind::HANDSHAKE, probe.tag(), one), frameOf(FrameKind::RECORD, probe.tag(), two),
                     frameOf(FrameKind::RECORD, probe.tag(), three)}));
  CHECK(holds(probe.frame(), FrameKind::HANDSHAKE, one));
  probe.session().park();
  probe.spoilScratch();
  CHECK(holds(probe.frame(), FrameKind::RECORD, two));
  CHECK(holds(probe.frame(), FrameKind::RECORD, three));
  CHECK(probe.nothingToRead());
}

TEST_CASE("whenReadable() is ready while parked bytes wait, and waits when there are none") {
  UpProbe probe;
  probe.send(joined(
      {frameOf(FrameKind::RECORD, probe.tag(), filled(5, 1)), frameOf(FrameKind::RECORD, probe.tag(), filled(6, 1))}));
  CHECK(probe.frame().body.size() == 5);
  probe.session().park();
  CHECK(probe.session().whenReadable().poll(probe.waitScope));
  CHECK(probe.frame().body.size() == 6);
  CHECK(probe.nothingToRead());
  auto wait = probe.session().whenReadable();
  CHECK(!wait.poll(probe.waitScope));
  probe.send(frameOf(FrameKind::RECORD, probe.tag(), filled(7, 1)));
  CHECK(wait.poll(probe.waitScope));
}

TEST_CASE("what follows the SYNC in the same read is the session's first frame") {
  SerialProbe probe;
  probe.accept();
  auto hellos = probe.heard();
  auto guest = guestHello(1, hellos[0].epoch());
  auto body = randomBytes(200, 5);
  probe.send(joined({syncOf(guest), frameOf(FrameKind::HANDSHAKE, linkTag(hellos[0].nonce, guest.nonce), body)}));
  REQUIRE(probe.isUp());
  CHECK(holds(probe.frame(), FrameKind::HANDSHAKE, body));
}

TEST_CASE("a frame with the tag of an earlier session is not delivered, and the next one is") {
  UpProbe probe;
  auto oldTag = probe.tag();
  probe.accept();
  probe.bringUp(2);
  auto body = randomBytes(50, 1);
  probe.send(joined({frameOf(FrameKind::RECORD, oldTag, filled(200, 1)), frameOf(FrameKind::HANDSHAKE, oldTag, nullptr),
                     frameOf(FrameKind::RECORD, probe.tag(), body)}));
  CHECK(holds(probe.frame(), FrameKind::RECORD, body));
  CHECK(probe.nothingToRead());
}

// T31
TEST_CASE("frames before UP are not delivered after it, even with a tag that fits") {
  SerialProbe probe;
  probe.accept();
  auto hellos = probe.heard();
  auto guest = guestHello(1, hellos[0].epoch());
  auto frame = frameOf(FrameKind::HANDSHAKE, linkTag(hellos[0].nonce, guest.nonce), filled(30, 1));
  probe.send(joined({frame, frame.slice(0, 20), syncOf(guest)}));
  REQUIRE(probe.isUp());
  CHECK(probe.nothingToRead());
}

TEST_CASE("a sync word inside a frame's body drops the frame, at every place and however it is split over reads") {
  for (size_t at = 0; at <= 40; ++at) {
    for (size_t split = 0; split <= at + SYNC_BYTES; split += 3) {
      UpProbe probe;
      auto cut = frameOf(FrameKind::RECORD, probe.tag(), filled(200, 3));
      auto bytes = joined({cut.slice(0, at), syncOf(guestHello(2, {}, true))});
      CAPTURE(at);
      CAPTURE(split);
      if (split > 0) {
        probe.send(bytes.slice(0, kj::min(split, bytes.size())));
        auto item = probe.session().readFrame();
        REQUIRE(!item.is<Frame>());
        if (item.is<LinkEnd>()) {
          // Half a header and then a sync word is a bad header before it is a word. The word counts all the same.
          probe.accept();
        }
      }
      probe.send(bytes.slice(kj::min(split, bytes.size()), bytes.size()));
      KJ_IF_MAYBE (c, probe.connection) {
        REQUIRE(!(*c)->readFrame().is<Frame>());
        probe.accept();
      }
      auto hellos = probe.heard();
      REQUIRE(hellos.size() > 0);
      CHECK(hellos.back().echo == guestHello(2).epoch());
      CHECK(hellos.size() <= 2);
    }
  }
}

TEST_CASE("an unfinished frame is dropped by a SYNC of the same epoch too, and the next frame is whole") {
  UpProbe probe;
  auto cut = frameOf(FrameKind::RECORD, probe.tag(), filled(200, 3));
  auto body = randomBytes(150, 4);
  for (size_t at = 0; at < cut.size(); at += 9) {
    CAPTURE(at);
    probe.send(cut.slice(0, at));
    CHECK(probe.nothingToRead());
    probe.send(joined({syncOf(guestHello(1)), frameOf(FrameKind::RECORD, probe.tag(), body)}));
    auto item = probe.session().readFrame();
    REQUIRE(item.is<Frame>());
    CHECK(holds(item.get<Frame>(), FrameKind::RECORD, body));
  }
}

TEST_CASE("a frame completed by the first bytes of a sync word does not hide the word") {
  for (size_t taken = 1; taken < SYNC_WORD_BYTES; ++taken) {
    UpProbe probe;
    auto frame = frameOf(FrameKind::RECORD, probe.tag(), filled(50, 3));
    auto sync = syncOf(guestHello(2, {}, true));
    CAPTURE(taken);
    // The peer died `taken` bytes before the frame's end; its successor's word stands there.
    probe.send(joined({frame.slice(0, frame.size() - taken), sync.slice(0, taken)}));
    CHECK(probe.frame().body.size() == 50);
    // A record layer refuses that frame and closes; or it is still busy when the rest comes.
    if (taken % 2 == 0) probe.accept();
    probe.written();
    probe.send(sync.slice(taken, sync.size()));
    if (taken % 2 != 0) CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::PEER_RESTARTED));
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    CHECK(hellos[0].echo == guestHello(2).epoch());
  }
}

// T21
TEST_CASE("bodies are bounded before authentication, and by the length field after it") {
  {
    UpProbe probe;
    auto body = randomBytes(limits::MAX_HANDSHAKE_BODY_BYTES, 1);
    probe.send(frameOf(FrameKind::HANDSHAKE, probe.tag(), body));
    CHECK(holds(probe.frame(), FrameKind::HANDSHAKE, body));
    // The header alone is enough.
    probe.send(frameOf(FrameKind::HANDSHAKE, probe.tag(), filled(257, 0)).slice(0, FRAME_HEADER_BYTES));
    CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
  }
  {
    UpProbe probe;
    probe.session().authenticated();
    auto body = randomBytes(MAX_FRAME_BODY_BYTES, 2);
    auto frame = frameOf(FrameKind::RECORD, probe.tag(), body);
    probe.send(frame);
    CHECK(holds(probe.frame(), FrameKind::RECORD, body));
    probe.send(frame.slice(0, 30'000));
    CHECK(probe.nothingToRead());
    probe.spoilScratch();
    probe.send(frame.slice(30'000, frame.size()));
    CHECK(holds(probe.frame(), FrameKind::RECORD, body));
  }
}

TEST_CASE("a header that is none ends the session, and a HELLO without a sync word is none") {
  for (auto bad : {LinkTag{0xff, 0xff, 9, 0}, LinkTag{1, 0, 0, 0}, LinkTag{1, 0, 4, 0}, LinkTag{1, 0, 3, 1}}) {
    UpProbe probe;
    auto old = probe.session().hellos().own.epoch();
    probe.send(joined(
        {frameOf(FrameKind::RECORD, probe.tag(), filled(9, 1)), kj::arrayPtr(bad.data(), bad.size()), filled(4, 0)}));
    CHECK(probe.frame().body.size() == 9);
    CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    CHECK(hellos[0].epoch() != old);
  }
  UpProbe probe;
  auto sync = syncOf(guestHello(1, probe.session().hellos().own.epoch()));
  probe.send(sync.slice(SYNC_WORD_BYTES, sync.size()));
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
}

TEST_CASE("the peer's SYNC behind a bad header in the same read is not missed") {
  UpProbe probe;
  probe.send(joined({filled(300, 0xee), syncOf(guestHello(2, {}, true))}));
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].echo == guestHello(2).epoch());
}

// Writing -------------------------------------------------------------------------------------------------------------

TEST_CASE("a reply waits for the end of the frame that has begun, however small the pieces that are written") {
  for (size_t room = 1; room < 60; ++room) {
    UpProbe probe;
    auto one = frameOf(FrameKind::RECORD, probe.tag(), randomBytes(50, 1));
    auto two = frameOf(FrameKind::RECORD, probe.tag(), randomBytes(60, 2));
    auto both = joined({one, two});
    CAPTURE(room);

    probe.wire.toGuest.capacity = room;
    size_t sent = write(probe.session(), both).bytes;
    CHECK(sent == room);
    probe.send(syncOf(guestHello(1, probe.session().hellos().own.epoch(), true)));
    CHECK(probe.nothingToRead());
    auto got = probe.written();
    while (sent < both.size()) {
      sent += write(probe.session(), both.slice(sent, both.size())).bytes;
      probe.run();
      got = joined({got, probe.written()});
    }
    probe.run();
    for (unsigned i = 0; i < SYNC_BYTES; ++i) {
      got = joined({got, probe.written()});
      probe.run();
    }

    REQUIRE(got.size() == both.size() + SYNC_BYTES);
    size_t boundary = room == one.size() ? one.size() : room < one.size() ? one.size() : both.size();
    CHECK(got.slice(0, boundary) == both.slice(0, boundary));
    CHECK(parseSyncs(got.slice(boundary, boundary + SYNC_BYTES), Role::GUEST).size() == 1);
    CHECK(got.slice(boundary + SYNC_BYTES, got.size()) == both.slice(boundary, both.size()));
  }
}

TEST_CASE("the reply that makes the peer UP goes out before the session's first frame") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  probe.wire.toGuest.capacity = 0;
  probe.send(syncOf(guestHello(1, epoch, true)));
  REQUIRE(probe.isUp());
  auto frame = frameOf(FrameKind::HANDSHAKE, probe.tag(), filled(20, 1));
  CHECK(write(probe.session(), frame).bytes == 0);
  auto writable = probe.session().whenWritable();
  CHECK(!writable.poll(probe.waitScope));

  probe.wire.toGuest.capacity = 100;
  probe.wire.toGuest.drop();
  CHECK(!writable.poll(probe.waitScope));
  auto first = probe.written();
  CHECK(writable.poll(probe.waitScope));
  CHECK(write(probe.session(), frame).bytes == frame.size());
  auto all = joined({first, probe.written()});
  auto hellos = parseSyncs(all.slice(0, SYNC_BYTES), Role::GUEST);
  CHECK(!hellos[0].replyWanted);
  CHECK(all.slice(SYNC_BYTES, all.size()) == frame);
}

TEST_CASE("when the peer restarts, the rest of the frame is not written and SYNC follows at once") {
  UpProbe probe;
  auto frame = frameOf(FrameKind::RECORD, probe.tag(), filled(100, 7));
  probe.wire.toGuest.capacity = 30;
  CHECK(write(probe.session(), frame).bytes == 30);
  auto wait = probe.session().whenWritable();
  probe.send(syncOf(guestHello(2, {}, true)));
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::PEER_RESTARTED));
  CHECK(wait.poll(probe.waitScope));
  CHECK((write(probe.session(), frame).state == PipeState::ENDED));

  probe.wire.toGuest.capacity = 1000;
  CHECK(probe.written().asPtr() == frame.slice(0, 30));
  probe.run();
  CHECK(probe.heard().size() == 1);
}

TEST_CASE("a SYNC that is half written when its epoch ends is cut short by the next") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  probe.send(syncOf(guestHello(1, epoch)));
  REQUIRE(probe.isUp());
  probe.wire.toGuest.capacity = 40;
  probe.send(syncOf(guestHello(1, epoch, true)));
  CHECK(probe.nothingToRead());
  CHECK(probe.wire.toGuest.lying() == 40);
  probe.session().close();
  probe.wire.toGuest.capacity = 1000;
  auto half = probe.written();
  probe.run();
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].epoch() != epoch);
}

TEST_CASE("close() ends the session for good and tells the peer with a new epoch") {
  UpProbe probe;
  auto old = probe.session().hellos().own.epoch();
  probe.send(frameOf(FrameKind::RECORD, probe.tag(), filled(9, 1)));
  probe.session().close();
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::CLOSED));
  CHECK((write(probe.session(), filled(1, 1)).state == PipeState::ENDED));
  CHECK(probe.session().whenReadable().poll(probe.waitScope));
  CHECK(probe.session().whenWritable().poll(probe.waitScope));
  probe.session().park();
  probe.session().authenticated();
  probe.session().close();
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].epoch() != old);
  CHECK(hellos[0].replyWanted);
}

TEST_CASE("a connection may outlive its link") {
  TestRandom random(1);
  kj::EventLoop loop;
  kj::WaitScope waitScope(loop);
  kj::TimerImpl timer(kj::origin<kj::TimePoint>());
  ReadScratch scratch;
  FakeWire wire;
  MortalPipe pipe(wire.toHost, wire.toGuest);
  kj::Own<FrameLink> connection;
  {
    SerialLink link(pipe, helloOf(Role::HOST), random, timer, scratch);
    auto accepting = link.accept();
    CHECK(!accepting.poll(waitScope));
    wire.toHost.inject(syncOf(guestHello(1, parseSyncs(wire.toGuest.take(), Role::GUEST)[0].epoch())));
    auto accepted = accepting.wait(waitScope);
    connection = kj::mv(accepted.get<kj::Own<FrameLink>>());
  }
  CHECK((connection->readFrame().get<LinkEnd>() == LinkEnd::ENDED));
  connection->close();
}

// The pipe's own ends -------------------------------------------------------------------------------------------------

TEST_CASE(
    "a device that loses its peer ends the session; when it is back there is a new epoch, and no spinning between") {
  UpProbe probe;
  auto old = probe.session().hellos().own.epoch();
  probe.wire.toHost.setConnected(false);
  probe.wire.toGuest.setConnected(false);
  probe.run();
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::PEER_RESTARTED));
  probe.accept();  // run() fails when the loop does not come to rest
  for (unsigned i = 0; i < 100; ++i) probe.advance(kj::SECONDS);
  CHECK(probe.heard().size() == 0);

  probe.wire.toHost.setConnected(true);
  probe.wire.toGuest.setConnected(true);
  probe.run();
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].epoch() != old);
  probe.advance(limits::SYNC_RETRY_FIRST);
  CHECK(probe.heard().size() == 1);
  probe.send(syncOf(guestHello(2, hellos[0].epoch())));
  CHECK(probe.isUp());
}

TEST_CASE("a SYNC half written when the device loses its peer is written anew") {
  SerialProbe probe;
  probe.wire.toGuest.capacity = 50;
  probe.accept();
  probe.wire.toGuest.setConnected(false);
  probe.wire.toHost.setConnected(false);
  probe.run();
  probe.wire.toGuest.drop();
  probe.wire.toGuest.capacity = 1000;
  probe.wire.toGuest.setConnected(true);
  probe.wire.toHost.setConnected(true);
  probe.run();
  CHECK(probe.heard().size() == 1);
}

TEST_CASE("the end of the pipe ends the session, accept() and every later accept()") {
  {
    UpProbe probe;
    probe.wire.toHost.inject(frameOf(FrameKind::RECORD, probe.tag(), filled(4, 1)));
    probe.wire.toHost.end();
    CHECK(probe.frame().body.size() == 4);
    CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::ENDED));
    for (unsigned i = 0; i < 2; ++i) {
      probe.accept();
      CHECK((KJ_ASSERT_NONNULL(probe.acceptEnd) == LinkEnd::ENDED));
    }
  }
  {
    SerialProbe probe;
    probe.accept();
    probe.wire.toHost.end();
    probe.run();
    CHECK((KJ_ASSERT_NONNULL(probe.acceptEnd) == LinkEnd::ENDED));
  }
  {
    SerialProbe probe;
    probe.wire.toGuest.end();  // writing alone is refused
    probe.accept();
    CHECK((KJ_ASSERT_NONNULL(probe.acceptEnd) == LinkEnd::ENDED));
  }
}
