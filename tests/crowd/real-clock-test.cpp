#include <doctest/doctest.h>
#include <stdio.h>

#include "protocol/limits.h"
#include "tests/crowd/bad-peer.h"
#include "tests/crowd/heap-count.h"
#include "tests/crowd/honest-guest.h"
#include "tests/support/comes-to.h"

namespace postern::test {
namespace {

constexpr unsigned BAD_VMS = 64;
constexpr unsigned BAD_PEERS = BAD_VMS * limits::MAX_HALF_OPEN_PER_VM;
constexpr unsigned HONEST_VMS = 8;
// For a machine that has other things to do, and sanitizers.
constexpr auto LENIENCE = 10 * kj::SECONDS;

struct Fixture {
  CrowdLoop loop{BAD_PEERS + BAD_VMS + HONEST_VMS};
  kj::Timer& timer = loop.port.getTimer();
  CrowdHost host{loop, timer, BAD_VMS + HONEST_VMS};
  TestRandom random{10};
  kj::Vector<kj::Own<BadPeer>> peers;
  kj::Vector<kj::Own<HonestGuest>> guests;

  bool allDone() {
    bool done = true;
    for (auto& peer : peers) {
      peer->goOn();
      done = done && peer->isClosed();
    }
    for (auto& guest : guests) done = done && guest->isIn();
    return done;
  }
  // Runs the loop until all peers are gone and all guests in, and gives the time that took.
  kj::Duration run(kj::Duration patience) {
    auto start = timer.now();
    while (!allDone() && timer.now() < start + patience) timer.afterDelay(10 * kj::MILLISECONDS).wait(loop.scope);
    CHECK(allDone());
    return timer.now() - start;
  }
  void addGuests() {
    for (unsigned i = 0; i < HONEST_VMS; ++i) guests.add(kj::heap<HonestGuest>(host, *host.vms[BAD_VMS + i]));
  }
  // Everybody goes, and what the sessions had in the pool is given back.
  void clear() {
    peers.clear();
    guests.clear();
    loop.settle();
    host.sessions.clear();
    auto late = timer.now() + LENIENCE;
    while (host.pool.freeBlocks() > 0 && timer.now() < late) timer.afterDelay(50 * kj::MILLISECONDS).wait(loop.scope);
    CHECK(host.admission.halfOpen() == 0);
  }
};

TEST_CASE("on the real clock, too, 128 bad peers are gone three seconds after accept, and the guests behind them in") {
  Fixture f;
  f.host.open();
  for (unsigned i = 0; i < BAD_VMS; ++i) f.peers.add(kj::heap<BadPeer>(*f.host.vms[i], Badness::GARBAGE, f.random));
  f.addGuests();
  CHECK(f.run(LENIENCE) < limits::HANDSHAKE_DEADLINE);
  f.clear();
  auto heap = heapBytes();
  auto descriptors = settled(descriptorsOpen);

  auto start = f.timer.now();
  for (unsigned i = 0; i < BAD_PEERS; ++i) {
    f.peers.add(kj::heap<BadPeer>(*f.host.vms[i % BAD_VMS], Badness(i % KINDS), f.random));
  }
  f.addGuests();
  // The first waiting ones are thrown out together; then the rest has its three seconds.
  while (f.host.rejectedFor(describe(EstablishFailure(TimedOut()))) == 0 && f.timer.now() < start + LENIENCE) {
    f.allDone();
    f.timer.afterDelay(10 * kj::MILLISECONDS).wait(f.loop.scope);
  }
  auto first = f.timer.now() - start;
  CHECK(first >= limits::HANDSHAKE_DEADLINE);
  CHECK(first < limits::HANDSHAKE_DEADLINE + LENIENCE);
  f.run(limits::HANDSHAKE_DEADLINE + LENIENCE);
  auto all = f.timer.now() - start;
  CHECK(all >= 2 * limits::HANDSHAKE_DEADLINE);
  printf("crowd: real clock: first gone after %ld ms, all gone and all guests in after %ld ms\n",
         long(first / kj::MILLISECONDS), long(all / kj::MILLISECONDS));
  f.clear();
  CHECK(heapBytes() < heap + 4096);
  CHECK(comesTo(descriptorsOpen, descriptors));
}

}  // namespace
}  // namespace postern::test
