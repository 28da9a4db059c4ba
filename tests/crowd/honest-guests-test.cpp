#include <doctest/doctest.h>
#include <stdio.h>

#include "protocol/limits.h"
#include "tests/crowd/bad-peer.h"
#include "tests/crowd/honest-guest.h"

namespace postern::test {
namespace {

constexpr auto STEP = 100 * kj::MILLISECONDS;

unsigned countIn(const kj::Vector<kj::Own<HonestGuest>>& guests) {
  unsigned count = 0;
  for (auto& guest : guests) count += guest->isIn();
  return count;
}

TEST_CASE("a thousand honest guests that come at once behind a queue of silent peers all get in") {
  CrowdLoop loop(3000);
  CrowdHost host(loop, loop.turned, 1000);
  TestRandom random(8);
  host.open();
  loop.settle();

  // Three times as many as there are places, two for each of the first VMs, whose guests are among the thousand.
  kj::Vector<kj::Own<BadPeer>> silent;
  for (unsigned i = 0; i < 3 * limits::MAX_HALF_OPEN; ++i) {
    silent.add(kj::heap<BadPeer>(*host.vms[i / 2], Badness::SILENT, random));
  }
  kj::Vector<kj::Own<HonestGuest>> guests;
  for (auto& vm : host.vms) guests.add(kj::heap<HonestGuest>(host, *vm));
  loop.settle();
  CHECK(host.admission.halfOpen() == limits::MAX_HALF_OPEN);
  CHECK(countIn(guests) == 0);

  auto start = loop.turned.now();
  while (countIn(guests) < guests.size() && loop.turned.now() < start + 30 * kj::SECONDS) loop.turn(STEP);
  CHECK(countIn(guests) == guests.size());
  // A guest whose patience ended just when its turn came had a session that it never saw; that has ended.
  CHECK(host.liveSessions() == guests.size());
  printf("crowd: a thousand guests in after %ld ms of the turned clock\n",
         long((loop.turned.now() - start) / kj::MILLISECONDS));
  for (auto& peer : silent) {
    CHECK(peer->closesSoon());
  }
  CHECK(host.admission.halfOpen() == 0);
}

TEST_CASE("an honest guest gets in while the peers of a hundred and sixty other VMs never leave a place free") {
  constexpr unsigned ATTACKERS = 160;
  CrowdLoop loop(1000);
  CrowdHost host(loop, loop.turned, ATTACKERS + 1);
  TestRandom random(9);
  host.open();
  kj::Vector<kj::Own<BadPeer>> peers;
  for (unsigned i = 0; i < 3 * ATTACKERS; ++i) {
    peers.add(kj::heap<BadPeer>(*host.vms[i % ATTACKERS], Badness::SILENT, random));
  }
  loop.settle();
  HonestGuest guest(host, *host.vms[ATTACKERS]);
  auto start = loop.turned.now();
  while (!guest.isIn() && loop.turned.now() < start + 120 * kj::SECONDS) {
    loop.turn(STEP);
    CHECK(host.admission.halfOpen() >= limits::MAX_HALF_OPEN - 1);
    for (unsigned i = 0; i < peers.size(); ++i) {
      peers[i]->goOn();
      peers[i]->goOn();
      if (peers[i]->isClosed()) peers[i] = kj::heap<BadPeer>(*host.vms[i % ATTACKERS], Badness::SILENT, random);
    }
  }
  CHECK(guest.isIn());
  printf("crowd: the guest among attackers in after %ld ms of the turned clock, at its attempt %u\n",
         long((loop.turned.now() - start) / kj::MILLISECONDS), guest.attempts);
}

}  // namespace
}  // namespace postern::test
