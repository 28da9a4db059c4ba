#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "tests/support/serial-probe.h"

using namespace postern;
using namespace postern::test;

// The rules of SYNC, one by one, against a peer that is made by hand.

TEST_CASE("the first thing on the wire is one SYNC that echoes nobody and wants a reply") {
  SerialProbe probe;
  CHECK(probe.written().size() == 0);
  probe.accept();
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].role == Role::HOST);
  CHECK(hellos[0].transport == TransportKind::SERIAL);
  CHECK(hellos[0].echo == Epoch{});
  CHECK(hellos[0].replyWanted);
}

TEST_CASE("an unanswered SYNC is repeated after 250 ms, doubling to 5 s, with the same epoch") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  for (unsigned ms : {250u, 500u, 1000u, 2000u, 4000u, 5000u, 5000u, 5000u}) {
    probe.advance((ms - 1) * kj::MILLISECONDS);
    CHECK(probe.heard().size() == 0);
    probe.advance(1 * kj::MILLISECONDS);
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    CHECK(hellos[0].epoch() == epoch);
    CHECK(hellos[0].replyWanted);
  }
}

TEST_CASE("bytes that trickle in do not put off the repetition of SYNC") {
  SerialProbe probe;
  probe.accept();
  probe.heard();
  for (unsigned i = 0; i < 250; ++i) {
    probe.send(filled(1, 1));
    probe.advance(1 * kj::MILLISECONDS);
  }
  CHECK(probe.heard().size() == 1);
}

// T31
TEST_CASE("only a SYNC that echoes the current epoch brings the link UP") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();

  probe.send(syncOf(guestHello(1)));
  CHECK(!probe.isUp());
  auto wrong = epoch;
  for (size_t i = 0; i < wrong.size(); ++i) {
    wrong[i] = static_cast<kj::byte>(wrong[i] ^ 1);
    probe.send(syncOf(guestHello(1, wrong)));
    CHECK(!probe.isUp());
    wrong[i] = static_cast<kj::byte>(wrong[i] ^ 1);
  }
  probe.send(syncOf(guestHello(1, epoch)));
  REQUIRE(probe.isUp());
  auto& hellos = probe.session().hellos();
  CHECK(hellos.self == Role::HOST);
  CHECK(hellos.own.epoch() == epoch);
  CHECK(hellos.peer.nonce == guestHello(1).nonce);
}

TEST_CASE("the epoch of a session that is over is no epoch: its echo does not bring the link UP") {
  SerialProbe probe;
  probe.accept();
  probe.bringUp(1);
  auto old = probe.session().hellos().own.epoch();
  probe.accept();  // destroys the connection
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].epoch() != old);
  CHECK(hellos[0].echo == guestHello(1).epoch());
  CHECK(hellos[0].replyWanted);

  probe.send(syncOf(guestHello(1, old)));
  probe.send(syncOf(guestHello(2, old)));
  CHECK(!probe.isUp());
  probe.send(syncOf(guestHello(2, hellos[0].epoch())));
  CHECK(probe.isUp());
}

TEST_CASE("the same epoch heard twice draws no new epoch, and neither does a new one while not UP") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  for (kj::byte nonce : std::initializer_list<kj::byte>{1, 1, 1, 2, 3, 3}) {
    auto hello = guestHello(nonce, {}, true);
    probe.send(syncOf(hello));
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    CHECK(hellos[0].epoch() == epoch);
    CHECK(hellos[0].echo == hello.epoch());
  }
}

TEST_CASE("a repeated SYNC while UP is answered if it wants to be, and the session goes on") {
  SerialProbe probe;
  probe.accept();
  probe.bringUp(1);
  auto own = probe.session().hellos().own.epoch();
  for (Epoch echo : {own, Epoch{}}) {
    probe.send(syncOf(guestHello(1, echo, true)));
    CHECK(probe.nothingToRead());
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    CHECK(hellos[0].epoch() == own);
    CHECK(hellos[0].echo == guestHello(1).epoch());
    CHECK(!hellos[0].replyWanted);
  }
  probe.send(frameOf(FrameKind::RECORD, probe.tag(), filled(10, 5)));
  CHECK(probe.frame().body.size() == 10);
}

TEST_CASE("a SYNC that wants no reply gets none") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  probe.send(syncOf(guestHello(1)));
  probe.send(syncOf(guestHello(2)));
  CHECK(probe.heard().size() == 0);
  probe.send(syncOf(guestHello(2, epoch)));
  REQUIRE(probe.isUp());
  probe.send(syncOf(guestHello(2, epoch)));
  CHECK(probe.nothingToRead());
  CHECK(probe.heard().size() == 0);
}

TEST_CASE("a new epoch while UP ends the session, draws one new own epoch and says so at once") {
  SerialProbe probe;
  probe.accept();
  probe.bringUp(1);
  auto old = probe.session().hellos().own.epoch();
  probe.send(joined({syncOf(guestHello(2, old, true)), syncOf(guestHello(3, old, true))}));
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::PEER_RESTARTED));
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].epoch() != old);
  CHECK(hellos[0].echo == guestHello(3).epoch());
  CHECK(hellos[0].replyWanted);

  probe.accept();
  CHECK(!probe.isUp());
  CHECK(probe.heard().size() == 0);
  probe.send(syncOf(guestHello(3, hellos[0].epoch())));
  CHECK(probe.isUp());
}

TEST_CASE("a HELLO that changes within its epoch is a new epoch, since both ends' prologues must agree") {
  SerialProbe probe;
  probe.accept();
  probe.bringUp(1);
  auto hello = guestHello(1, probe.session().hellos().own.epoch());
  hello.keyHint.fill(9);
  probe.send(syncOf(hello));
  CHECK((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::PEER_RESTARTED));
}

TEST_CASE("a SYNC with any byte changed does not bring the link UP, and a good one behind it does") {
  for (size_t at = 0; at < SYNC_BYTES; ++at) {
    for (kj::byte mask : std::initializer_list<kj::byte>{0x01, 0x80}) {
      SerialProbe probe;
      probe.accept();
      auto epoch = probe.heard()[0].epoch();
      auto bad = syncOf(guestHello(1, epoch, true));
      bad[at] = static_cast<kj::byte>(bad[at] ^ mask);
      CAPTURE(at);
      probe.send(bad);
      REQUIRE(!probe.isUp());
      REQUIRE(probe.heard().size() == 0);
      probe.send(syncOf(guestHello(1, epoch)));
      REQUIRE(probe.isUp());
    }
  }
}

TEST_CASE("a SYNC with any byte changed ends a session that is UP, since bytes have been lost") {
  for (size_t at = 0; at < SYNC_BYTES; ++at) {
    SerialProbe probe;
    probe.accept();
    probe.bringUp(1);
    auto own = probe.session().hellos().own.epoch();
    auto bad = syncOf(guestHello(1, own));
    bad[at] = static_cast<kj::byte>(bad[at] ^ 0x10);
    CAPTURE(at);
    probe.send(bad);
    REQUIRE((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
    auto hellos = probe.heard();
    REQUIRE(hellos.size() == 1);
    REQUIRE(hellos[0].epoch() != own);
    REQUIRE(hellos[0].replyWanted);
  }
}

TEST_CASE("a SYNC cut anywhere does not spoil the one behind it") {
  for (size_t cut = 0; cut < SYNC_BYTES; ++cut) {
    SerialProbe probe;
    probe.accept();
    auto epoch = probe.heard()[0].epoch();
    auto sync = syncOf(guestHello(1, epoch));
    CAPTURE(cut);
    probe.send(sync.slice(0, cut));
    REQUIRE(!probe.isUp());
    probe.send(sync);
    REQUIRE(probe.isUp());
  }
}

TEST_CASE("a SYNC that arrives in two reads is heard wherever it is cut, while not UP and while UP") {
  for (size_t cut = 1; cut < SYNC_BYTES; ++cut) {
    SerialProbe probe;
    probe.accept();
    auto epoch = probe.heard()[0].epoch();
    auto sync = syncOf(guestHello(1, epoch));
    CAPTURE(cut);
    probe.send(sync.slice(0, cut));
    probe.send(sync.slice(cut, sync.size()));
    REQUIRE(probe.isUp());

    auto repeated = syncOf(guestHello(1, epoch, true));
    probe.send(repeated.slice(0, cut));
    REQUIRE(probe.nothingToRead());
    probe.spoilScratch();
    REQUIRE(probe.nothingToRead());  // asked twice without a new byte
    probe.send(repeated.slice(cut, repeated.size()));
    REQUIRE(probe.nothingToRead());
    REQUIRE(probe.heard().size() == 1);
  }
}

TEST_CASE("the beginning of a sync word that does not go on as one is a bad header") {
  for (size_t length = 8; length < SYNC_WORD_BYTES; ++length) {
    SerialProbe probe;
    probe.accept();
    probe.bringUp(1);
    CAPTURE(length);
    probe.send(kj::arrayPtr(SYNC_WORD.data(), length));
    REQUIRE(probe.nothingToRead());
    probe.send(filled(1, static_cast<kj::byte>(SYNC_WORD[length] ^ 1)));
    REQUIRE((KJ_ASSERT_NONNULL(probe.end()) == LinkEnd::BAD_FRAME));
  }
}

// T33
TEST_CASE("a thousand SYNCs that want a reply cost two while the pipe is full, and few in one read") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();
  kj::Vector<kj::byte> many;
  for (unsigned i = 0; i < 1000; ++i) many.addAll(syncOf(guestHello(1, {}, true)));

  probe.send(many);
  CHECK(probe.heard().size() == 1);

  probe.wire.toGuest.capacity = 10;
  probe.send(many);
  probe.send(many);
  CHECK(probe.wire.toGuest.lying() == 10);
  auto begun = probe.written();
  probe.wire.toGuest.capacity = 100'000;
  probe.run();
  CHECK(parseSyncs(joined({begun, probe.written()}), Role::GUEST).size() <= 2);

  probe.send(syncOf(guestHello(1, epoch)));
  REQUIRE(probe.isUp());
  probe.wire.toGuest.capacity = 10;
  probe.send(many);
  CHECK(probe.nothingToRead());
  probe.send(many);
  CHECK(probe.nothingToRead());
  begun = probe.written();
  probe.wire.toGuest.capacity = 100'000;
  probe.run();
  CHECK(parseSyncs(joined({begun, probe.written()}), Role::GUEST).size() <= 2);
}

TEST_CASE("a peer of the same role or without a common version is not answered, and the link can say why") {
  SerialProbe probe;
  probe.accept();
  auto epoch = probe.heard()[0].epoch();

  auto sameRole = guestHello(1, epoch, true);
  sameRole.role = Role::HOST;
  probe.send(syncOf(sameRole));
  CHECK((KJ_ASSERT_NONNULL(probe.link.lastRefusal()) == HelloError::SAME_ROLE));

  auto future = guestHello(1, epoch, true);
  future.versionMin = future.versionMax = PROTOCOL_VERSION + 1;
  probe.send(syncOf(future));
  CHECK((KJ_ASSERT_NONNULL(probe.link.lastRefusal()) == HelloError::NO_VERSION));

  CHECK(!probe.isUp());
  CHECK(probe.heard().size() == 0);
  probe.send(syncOf(guestHello(1, epoch)));
  CHECK(probe.isUp());
  CHECK(probe.link.lastRefusal() == nullptr);
}

TEST_CASE("the prologue's bytes are the peer's own, reserved ones included") {
  SerialProbe probe;
  probe.accept();
  auto sync = syncOf(guestHello(1, probe.heard()[0].epoch()));
  probe.send(sync);
  REQUIRE(probe.isUp());
  auto& hellos = probe.session().hellos();
  CHECK(memcmp(hellos.peerBytes.data(), sync.begin() + SYNC_WORD_BYTES + FRAME_HEADER_BYTES, HELLO_PROLOGUE_BYTES) ==
        0);
}

TEST_CASE("a new offer begins a new epoch, at once when nobody is connected and else with the next session") {
  SerialProbe probe;
  probe.accept();
  auto first = probe.heard()[0];
  auto hello = helloOf(Role::HOST);
  hello.patterns = PATTERN_XXPSK0;
  probe.link.offer(hello);
  probe.run();
  auto hellos = probe.heard();
  REQUIRE(hellos.size() == 1);
  CHECK(hellos[0].patterns == PATTERN_XXPSK0);
  CHECK(hellos[0].epoch() != first.epoch());
  probe.send(syncOf(guestHello(1, first.epoch())));
  CHECK(!probe.isUp());

  probe.bringUp(1);
  hello.patterns = PATTERN_KKPSK0;
  probe.link.offer(hello);
  probe.send(frameOf(FrameKind::HANDSHAKE, probe.tag(), filled(3, 3)));
  CHECK(probe.frame().body.size() == 3);
  CHECK(probe.session().hellos().own.patterns == PATTERN_XXPSK0);
  probe.accept();
  CHECK(probe.heard()[0].patterns == PATTERN_KKPSK0);
}

TEST_CASE("an accept() that is dropped and called again goes on where it was") {
  SerialProbe probe;
  { auto dropped = probe.link.accept(); }
  probe.run();
  probe.accept();
  auto hellos = parseSyncs(probe.written(), Role::GUEST);
  REQUIRE(hellos.size() == 1);
  auto sync = syncOf(guestHello(1, hellos[0].epoch()));
  probe.send(sync.slice(0, 77));
  probe.accept();
  probe.send(sync.slice(77, sync.size()));
  CHECK(probe.isUp());
  CHECK(probe.heard().size() == 0);
}
