#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "tests/crowd/bad-peer.h"
#include "tests/crowd/honest-guest.h"
#include "tests/support/comes-to.h"

namespace postern::test {
namespace {

// Bad peers and guests at four doors, served for `turns` turns of the loop; then the host stops. False when there was
// nothing left to do before.
bool cutShortAfter(unsigned turns) {
  CrowdLoop loop(32);
  CrowdHost host(loop, loop.turned, 4);
  TestRandom random(turns + 1);
  host.open();
  kj::Vector<kj::Own<BadPeer>> peers;
  for (unsigned kind = 0; kind < KINDS; ++kind) {
    peers.add(kj::heap<BadPeer>(*host.vms[kind % 3], Badness(kind), random));
  }
  HonestGuest atQuietDoor(host, *host.vms[3]);
  HonestGuest atBusyDoor(host, *host.vms[0]);
  bool runnable = true;
  for (unsigned i = 0; i < turns && runnable; ++i) {
    if (!loop.loop.isRunnable()) {
      for (auto& peer : peers) peer->goOn();
      loop.port.poll();
    }
    runnable = loop.loop.isRunnable();
    loop.loop.run(1);
  }

  host.close();
  CHECK(host.admission.halfOpen() == 0);
  loop.settle();
  for (auto& peer : peers) {
    CHECK(peer->closesSoon());
  }
  CHECK((runnable || atQuietDoor.isIn()));
  return runnable;
}

TEST_CASE("a reception that is destroyed at any moment closes every connection that it has not delivered") {
  auto descriptors = settled(descriptorsOpen);
  unsigned turns = 0;
  while (cutShortAfter(turns) && turns < 5000) ++turns;
  CHECK(turns > 50);
  CHECK(turns < 5000);
  CHECK(comesTo(descriptorsOpen, descriptors));
}

}  // namespace
}  // namespace postern::test
