#include <doctest/doctest.h>
#include <stdio.h>

#include "protocol/limits.h"
#include "tests/crowd/bad-peer.h"
#include "tests/crowd/heap-count.h"
#include "tests/support/comes-to.h"

namespace postern::test {
namespace {

constexpr auto DEADLINE = limits::HANDSHAKE_DEADLINE;
constexpr unsigned VMS = 64;
constexpr unsigned WAVE = VMS * limits::MAX_HALF_OPEN_PER_VM;  // as many as are never refused unread
constexpr unsigned WAVES = 81;                                 // nine times nine, so that all kinds come equally often
static_assert(WAVES * WAVE >= 10000 && WAVES % KINDS == 0);
static_assert(WAVE == 2 * limits::MAX_HALF_OPEN, "half of a wave that only waits is waiting in listen queues");

constexpr const char* NAMES[WAITING_KINDS] = {
    "silent", "half a HELLO", "HELLO", "half a handshake", "handshake without CONFIRM", "half an enrolment"};

struct Fixture {
  CrowdLoop loop{VMS + limits::MAX_HALF_OPEN};
  CrowdHost host{loop, loop.turned, VMS};
  TestRandom random{7};
  kj::Vector<kj::Own<BadPeer>> peers;

  Fixture() {
    host.open();
    loop.settle();
  }

  void add(unsigned vm, Badness badness) { peers.add(kj::heap<BadPeer>(*host.vms[vm], badness, random)); }
  // Until nothing happens any more without the clock.
  void settle() {
    for (int i = 0; i < 4; ++i) {
      loop.settle();
      for (auto& peer : peers) peer->goOn();
    }
  }
  void turn(kj::Duration by) {
    loop.turn(by);
    settle();
  }
  // Until the admission has forgotten all VMs but the one that comes now.
  void rest() {
    turn(1 * kj::HOURS);
    add(0, Badness::GARBAGE);
    settle();
    peers.clear();
  }
  uint64_t timeouts() const { return host.rejectedFor(describe(EstablishFailure(TimedOut()))); }
  // Those that have seen it. What the host has closed is closed in a thread's time.
  unsigned closed() {
    unsigned count = 0;
    for (auto& peer : peers) {
      peer->goOn();
      count += peer->isClosed();
    }
    return count;
  }
  bool closesIn(unsigned count) {
    return comesTo([this]() { return closed(); }, count);
  }
};

// 128 peers, two for each VM, their kinds by turns from `first` on. Nothing of them is left.
void passWave(Fixture& f, unsigned first) {
  unsigned waiting = 0;
  for (unsigned i = 0; i < WAVE; ++i) {
    auto badness = Badness((first + i) % KINDS);
    waiting += isWaiting(badness);
    f.add(i % VMS, badness);
  }
  f.settle();
  // The rude are gone at once, but for those that wait in the kernel for a place of the patient.
  CHECK(f.host.admission.halfOpen() == limits::MAX_HALF_OPEN);
  CHECK(waiting > limits::MAX_HALF_OPEN);
  auto early = settled([&]() { return f.closed(); });
  f.turn(DEADLINE - 1 * kj::NANOSECONDS);
  CHECK(f.closed() == early);
  CHECK(f.host.admission.halfOpen() == limits::MAX_HALF_OPEN);
  f.turn(1 * kj::NANOSECONDS);
  CHECK(f.host.admission.halfOpen() == waiting - limits::MAX_HALF_OPEN);
  f.turn(DEADLINE);
  CHECK(f.host.admission.halfOpen() == 0);
  CHECK(f.closesIn(WAVE));
  f.peers.clear();
}

TEST_CASE("ten thousand peers that prove nothing are gone three seconds after their accept and leave nothing behind") {
  Fixture f;
  f.peers.reserve(WAVE);
  passWave(f, 0);
  f.rest();
  auto heap = heapBytes();
  auto allocator = allocatorBytes();
  auto descriptors = settled(descriptorsOpen);
  auto before = f.host.rejections;
  auto timeouts = f.timeouts();

  for (unsigned wave = 0; wave < WAVES; ++wave) passWave(f, wave);

  CHECK(f.host.rejections - before == WAVES * WAVE);
  CHECK(f.timeouts() - timeouts == WAVES * WAVE / KINDS * WAITING_KINDS);
  f.rest();
  CHECK(f.host.sessions.size() == 0);
  // Not exactly as much: the admission's hash table may be one size larger or smaller. Half a byte a peer.
  CHECK(heapBytes() < heap + 4096);
  CHECK(comesTo([&]() { return allocatorBytes() < allocator + (size_t(64) << 10); }, true));
  CHECK(comesTo(descriptorsOpen, descriptors));
  CHECK(f.host.admission.vmsRemembered() == 1);

  auto ofEach = WAVES * WAVE / KINDS;
  CHECK(f.host.rejectedFor(describe(EstablishFailure(LinkEnd::BAD_FRAME))) >= ofEach);
  CHECK(f.host.rejectedFor(describe(HelloError::BAD_CRC)) >= ofEach);
  CHECK(f.host.rejectedFor(describe(HandshakeRefusal::BAD_TAG)) >= ofEach);
}

TEST_CASE("a peer that has proved nothing costs at most 4 KiB of heap, whatever it waits with") {
  Fixture f;
  f.peers.reserve(WAVE);
  passWave(f, 0);
  for (unsigned kind = 0; kind < WAITING_KINDS; ++kind) {
    f.rest();
    for (unsigned i = 0; i < limits::MAX_HALF_OPEN; ++i) f.add(i, Badness(kind));
    auto withPeers = heapBytes();
    f.settle();
    REQUIRE(f.host.admission.halfOpen() == limits::MAX_HALF_OPEN);
    auto each = (heapBytes() - withPeers) / limits::MAX_HALF_OPEN;
    INFO(NAMES[kind]);
    CHECK(each > 500);  // it is there and was counted
    CHECK(each <= 4096);
    printf("crowd: a half-open link costs %zu bytes of heap: %s\n", each, NAMES[kind]);
    f.turn(DEADLINE);
    CHECK(f.closesIn(limits::MAX_HALF_OPEN));
    f.peers.clear();
  }
}

TEST_CASE("peers above the limits of a VM are closed unread, and those of other VMs do not notice") {
  Fixture f;
  for (int i = 0; i < 100; ++i) f.add(0, Badness::SILENT);
  f.settle();
  CHECK(f.closesIn(98));
  CHECK(f.host.rejectedFor(describe(Refusal::TOO_MANY_HALF_OPEN)) == 98);
  CHECK(f.host.admission.halfOpen() == 2);

  for (int i = 0; i < 100; ++i) {
    f.add(1, Badness::GARBAGE);
    f.settle();
  }
  CHECK(f.host.rejectedFor(describe(EstablishFailure(LinkEnd::BAD_FRAME))) == limits::HANDSHAKE_BURST);
  CHECK(f.host.rejectedFor(describe(Refusal::TOO_OFTEN)) == 100 - limits::HANDSHAKE_BURST);

  f.add(2, Badness::GARBAGE_HELLO);
  f.settle();
  CHECK(f.host.rejectedFor(describe(HelloError::BAD_CRC)) == 1);
  f.turn(DEADLINE);
  CHECK(f.closesIn(unsigned(f.peers.size())));
  CHECK(f.host.admission.halfOpen() == 0);
}

}  // namespace
}  // namespace postern::test
