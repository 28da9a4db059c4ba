#include "transport/doorkeeper.h"

#include "tests/unit/transport/door-fixture.h"

namespace postern {
namespace {

struct Fixture : DoorFixture {
  Doorkeeper doorkeeper{listener, admission, timer, vmOfCid};

  Visitor visitor() {
    auto outcome = now(doorkeeper.next());
    REQUIRE(outcome.is<Visitor>());
    return kj::mv(outcome.get<Visitor>());
  }
  TurnedAway turnedAway() {
    auto outcome = now(doorkeeper.next());
    REQUIRE(outcome.is<TurnedAway>());
    return kj::mv(outcome.get<TurnedAway>());
  }
};

TEST_CASE("a visitor has the VM of its address, three seconds from accept, and its connection unread") {
  Fixture f;
  auto peer = f.listener.connectFrom(VsockPeer{42, 5000});
  sendAll(peer, "early");
  f.advance(1 * kj::SECONDS);  // in the queue
  auto visitor = f.visitor();
  CHECK((visitor.vm == "vm42"));
  CHECK(visitor.connection.peer.get<VsockPeer>().port == 5000);
  CHECK((receiveNow(visitor.connection.fd) == "early"));
  CHECK((visitor.deadline - f.timer.now() == limits::HANDSHAKE_DEADLINE));
  CHECK(f.admission.halfOpen() == 1);
}

TEST_CASE("a peer whose address is no VM's is closed unread, and takes no place") {
  Fixture f;
  auto peer = f.listener.connectFrom(VsockPeer{4711, 5000});
  {
    auto away = f.turnedAway();
    CHECK(away.why.is<Stranger>());
    CHECK(away.peer.get<VsockPeer>().cid == 4711);
    CHECK((away.vm == ""));
  }
  CHECK((receiveNow(peer) == ""));
  CHECK(f.admission.halfOpen() == 0);
  CHECK(f.admission.vmsRemembered() == 0);
}

TEST_CASE("a third half-open connection of a VM is closed unread; its privileged ones count apart") {
  Fixture f;
  kj::Vector<kj::AutoCloseFd> peers;
  for (uint32_t port : {5000u, 5001u, 5002u, 1023u, 1022u, 1021u})
    peers.add(f.listener.connectFrom(VsockPeer{42, port}));
  auto first = f.visitor();
  auto second = f.visitor();
  auto third = f.turnedAway();
  CHECK((third.vm == "vm42"));
  CHECK(third.why.get<Refusal>() == Refusal::TOO_MANY_HALF_OPEN);
  CHECK((receiveNow(peers[2]) == ""));
  auto privileged = f.visitor();
  auto privilegedToo = f.visitor();
  CHECK(f.turnedAway().why.get<Refusal>() == Refusal::TOO_MANY_HALF_OPEN);
  CHECK((receiveNow(peers[0]) == "-"));
}

TEST_CASE("without a place, connections wait unread; a cancelled wait loses none") {
  Fixture f;
  auto held = f.occupy(0);
  auto peer = f.listener.connectFrom(VsockPeer{42, 5000});
  sendAll(peer, "patient");
  {
    auto cancelled = f.doorkeeper.next();
    CHECK(!f.resolves(cancelled));
  }
  auto next = f.doorkeeper.next();
  CHECK(!f.resolves(next));
  f.advance(10 * kj::SECONDS);
  CHECK(!f.resolves(next));
  held.removeLast();
  auto outcome = f.now(kj::mv(next));
  REQUIRE(outcome.is<Visitor>());
  auto& visitor = outcome.get<Visitor>();
  CHECK((receiveNow(visitor.connection.fd) == "patient"));
  CHECK((visitor.deadline - f.timer.now() == limits::HANDSHAKE_DEADLINE));
}

TEST_CASE("connections that were given up in the queue are passed over on one place, and cost no token") {
  Fixture f;
  auto held = f.occupy(0);
  for (uint32_t i = 0; i < 2 * limits::HANDSHAKE_BURST; ++i) {
    auto impatient = f.listener.connectFrom(VsockPeer{42, 5000 + i});
    sendAll(impatient, "too late");
  }
  auto living = f.listener.connectFrom(VsockPeer{42, 6000});
  auto next = f.doorkeeper.next();
  CHECK(!f.resolves(next));
  auto later = f.admission.whenSlot();
  held.removeLast();
  CHECK(f.resolves(next));
  CHECK(!f.resolves(later));  // the place has not been given back meanwhile
  auto outcome = f.now(kj::mv(next));
  REQUIRE(outcome.is<Visitor>());
  auto& visitor = outcome.get<Visitor>();
  CHECK(visitor.connection.peer.get<VsockPeer>().port == 6000);
}

TEST_CASE("when all in the queue were given up, the place goes to the next") {
  Fixture f;
  auto held = f.occupy(0);
  f.listener.connectFrom(VsockPeer{42, 5000});
  auto next = f.doorkeeper.next();
  CHECK(!f.resolves(next));
  auto later = f.admission.whenSlot();
  held.removeLast();
  CHECK(f.resolves(later));
  CHECK(!f.resolves(next));
}

TEST_CASE("a listener that fails makes next() fail") {
  Fixture f;
  f.listener.isBroken = true;
  auto next = f.doorkeeper.next();
  CHECK(f.resolves(next));
  CHECK_THROWS_AS(next.wait(f.scope), kj::Exception);
}

}  // namespace
}  // namespace postern
