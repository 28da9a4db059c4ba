// The guest is killed at every write to its disk, before and after it took effect, in an enrolment and in a rekeying,
// with a host that loses its answers besides; each time, starting it again ends with a pair that works.

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/guest-agent/agent-stage.h"

using namespace postern;
using namespace postern::guest;
using namespace postern::guest::test;

namespace {

kj::Array<kj::Own<Bundle>> one(kj::Own<Bundle> bundle) {
  auto list = kj::heapArrayBuilder<kj::Own<Bundle>>(1);
  list.add(kj::mv(bundle));
  return list.finish();
}

// The host's trouble in one run.
struct Losses {
  unsigned beforeAccept = 0;
  unsigned beforeCommitted = 0;
};
constexpr Losses LOSSES[] = {{0, 0}, {1, 0}, {0, 1}, {2, 1}};

bool countersOnlyGrow(SmallHost& host) {
  // Within one pair; a new pair begins anew.
  return host.counters.size() > 0;
}

}  // namespace

TEST_CASE("an enrolment ends with a working pair, one write of each phase after the other") {
  AgentStage stage;
  auto bundles = one(stage.ownHost->offer());
  REQUIRE(stage.start(bundles));
  CHECK(stage.isWorking());
  CHECK(stage.ownHost->enrolments == 1);
  CHECK(stage.broker().settled == 1);
  CHECK(countersOnlyGrow(*stage.ownHost));
  // Key and token; counter; link secret; committed; settled.
  CHECK(stage.disk.writes == 5);
}

// T47
TEST_CASE("an enrolment survives a crash at each write, whatever answers are lost besides") {
  unsigned runs = 0;
  for (auto& losses : LOSSES) {
    for (bool before : {false, true}) {
      bool reached = true;
      for (unsigned at = 1; reached; ++at) {
        AgentStage stage(at);
        auto bundles = one(stage.ownHost->offer());
        stage.ownHost->dropBeforeAccept = losses.beforeAccept;
        stage.ownHost->dropBeforeCommitted = losses.beforeCommitted;
        stage.disk.crashAt = at;
        stage.disk.crashBefore = before;
        if (stage.start(bundles)) stage.isWorking();
        reached = stage.hasCrashed();
        stage.kill();
        stage.disk.crashAt = 0;
        REQUIRE(stage.start(bundles));
        CHECK(stage.isWorking());
        CHECK(stage.ownHost->enrolments == 1);
        CHECK(stage.ownHost->tokenReuses == 0);
        ++runs;
      }
    }
  }
  CHECK(runs > 40);
}

// T47
TEST_CASE("a rekeying survives a crash at each write; until it is committed the old pair works") {
  unsigned runs = 0;
  for (auto& losses : LOSSES) {
    for (bool before : {false, true}) {
      bool reached = true;
      for (unsigned at = 1; reached; ++at) {
        AgentStage stage(at);
        auto first = one(stage.ownHost->offer());
        REQUIRE(stage.start(first));
        REQUIRE(stage.isWorking());
        auto second = one(stage.ownHost->offer());
        stage.ownHost->dropBeforeAccept = losses.beforeAccept;
        stage.ownHost->dropBeforeCommitted = losses.beforeCommitted;
        stage.disk.crashAt = stage.disk.writes + at;
        stage.disk.crashBefore = before;
        stage.give(second);
        if (stage.until([&]() { return stage.ownHost->enrolments == 2; })) stage.isWorking();
        reached = stage.hasCrashed();
        stage.kill();
        stage.disk.crashAt = 0;
        REQUIRE(stage.start(second));
        CHECK(stage.until([&]() { return stage.ownHost->enrolments == 2; }));
        CHECK(stage.isWorking());
        CHECK(stage.ownHost->tokenReuses == 0);
        CHECK(stage.disk.files[1] == nullptr);
        ++runs;
      }
    }
  }
  CHECK(runs > 40);
}

TEST_CASE("a bundle that the host does not take leaves the old identity at work, and is given up") {
  AgentStage stage;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  auto unknown = one(stage.ownHost->offer());
  stage.ownHost->state.offer = nullptr;
  stage.give(unknown);
  // By this time it was tried MAX_REFUSALS times, beside the session that goes on.
  CHECK(stage.isWorking());
  CHECK(stage.disk.files[1] == nullptr);
  CHECK(stage.ownHost->enrolments == 1);
  CHECK(stage.ownHost->sessions == 2);
  // The same again is not news; it is told.
  auto again = stage.pairing().consider(unknown);
  CHECK(!again.get<Pairing::Told>().news);
  CHECK(again.get<Pairing::Told>().lines.size() == 1);
}

TEST_CASE("of several bundles each one is tried, and the first that works is the identity") {
  AgentStage stage;
  auto stale = stage.ownHost->offer();
  auto good = stage.ownHost->offer();
  auto list = kj::heapArrayBuilder<kj::Own<Bundle>>(2);
  list.add(kj::mv(stale));
  list.add(kj::mv(good));
  auto bundles = list.finish();
  REQUIRE(stage.start(bundles));
  CHECK(stage.isWorking());
  CHECK(stage.ownHost->enrolments == 1);
  CHECK(stage.disk.files[1] == nullptr);
}

TEST_CASE("a bundle for another VM is not taken by an enrolled guest, and told") {
  AgentStage stage;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  auto other = stage.ownHost->offer();
  other->vm.bytes[0] ^= 1;
  auto told = stage.pairing().consider(one(kj::mv(other)));
  CHECK(!told.get<Pairing::Told>().news);
  REQUIRE(told.get<Pairing::Told>().lines.size() == 1);
  CHECK(stage.isWorking());
}

// T46
TEST_CASE("an identity of another machine is refused, by a line that says what to do") {
  AgentStage stage;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  stage.kill();
  stage.machine = Machine(MachineHash{2}, nullptr);
  DiskVault current(stage.disk, 0), successor(stage.disk, 1);
  auto opened = Pairing::open(current, successor, stage.machine, stage.random);
  REQUIRE(opened.is<VaultError>());
  std::string text = opened.get<VaultError>().text.cStr();
  CHECK(text.find("another machine") != std::string::npos);
  CHECK(text.find("join --force") != std::string::npos);
}

TEST_CASE("a state that is damaged or of a later version is refused and left as it is") {
  AgentStage stage;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  stage.kill();
  auto& file = KJ_ASSERT_NONNULL(stage.disk.files[0]);
  auto whole = kj::heapArray<kj::byte>(file);
  DiskVault current(stage.disk, 0), successor(stage.disk, 1);
  for (size_t size = 0; size < whole.size(); size += 8) {
    stage.disk.files[0] = kj::heapArray<kj::byte>(whole.slice(0, size));
    CHECK((Pairing::open(current, successor, stage.machine, stage.random).is<VaultError>()));
  }
  CHECK(stage.disk.writes > 0);
}

TEST_CASE("a disk that is full keeps the session that there is and takes no new one until there is room") {
  AgentStage stage;
  REQUIRE(stage.start(one(stage.ownHost->offer())));
  REQUIRE(stage.isWorking());
  stage.disk.full = true;
  CHECK(stage.isWorking());
  stage.ownHost->drop();
  CHECK(!stage.until([&]() { return stage.ownHost->isConnected(); }, 20 * kj::SECONDS));
  stage.disk.full = false;
  CHECK(stage.isWorking());
}

TEST_CASE("the session counter grows with every session, over restarts too") {
  AgentStage stage;
  auto bundles = one(stage.ownHost->offer());
  for (unsigned i = 0; i < 4; ++i) {
    REQUIRE(stage.start(bundles));
    REQUIRE(stage.isWorking());
    stage.ownHost->drop();
    REQUIRE(stage.isWorking());
    stage.kill();
  }
  auto& counters = stage.ownHost->counters;
  for (size_t i = 1; i < counters.size(); ++i) CHECK(counters[i] > counters[i - 1]);
}
