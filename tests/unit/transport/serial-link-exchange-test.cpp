#include <doctest/doctest.h>

#include "tests/support/serial-end.h"

using namespace postern;
using namespace postern::test;

namespace {

void runExchange(SerialStage& stage) {
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  stage.run();
}

}  // namespace

TEST_CASE("two ends that start on an empty wire get UP and exchange frames without any timer") {
  for (auto script : {smallScript(), largeScript()}) {
    SerialStage stage(script);
    runExchange(stage);
    CHECK(stage.bothDone());
    CHECK(stage.guest().sessions == 1);
    CHECK(stage.host().sessions == 1);
  }
}

TEST_CASE("an end that starts long after the other needs no timer of its own") {
  for (Role first : {Role::GUEST, Role::HOST}) {
    SerialStage stage;
    stage.start(first);
    stage.run();
    for (unsigned i = 0; i < 20; ++i) stage.advance(kj::SECONDS);
    CHECK(!stage.end(first).isUp());
    stage.start(other(first));
    stage.run();
    CHECK(stage.bothDone());
    CHECK(stage.end(first).sessions == 1);
    CHECK(stage.end(other(first)).sessions == 1);
  }
}

TEST_CASE("a wire that takes and gives one byte at a time changes nothing") {
  struct Case {
    Script script;
    size_t capacity;
  };
  for (auto& c : {Case{smallScript(), 1}, Case{smallScript(), 4096}, Case{largeScript(), 4096}}) {
    SerialStage stage(c.script);
    for (auto* direction : {&stage.wire.toHost, &stage.wire.toGuest}) {
      direction->readAtMost = 1;
      direction->writeAtMost = 1;
      direction->capacity = c.capacity;
    }
    runExchange(stage);
    CHECK(stage.bothDone());
    CHECK(stage.guest().sessions == 1);
    CHECK(stage.host().sessions == 1);
  }
}

TEST_CASE("reads of every small size give the same frames, so a sync word is found wherever a read ends") {
  for (size_t size = 1; size <= 2 * SYNC_BYTES; ++size) {
    SerialStage stage;
    stage.wire.toHost.readAtMost = size;
    stage.wire.toGuest.readAtMost = size;
    runExchange(stage);
    CHECK(stage.bothDone());
    CHECK(stage.guest().sessions == 1);
    CHECK(stage.host().sessions == 1);
  }
}

TEST_CASE("a session that closes is followed by another, with new epochs at both ends") {
  for (Role closing : {Role::GUEST, Role::HOST}) {
    SerialStage stage;
    runExchange(stage);
    auto before = stage.guest().hellos();
    stage.end(closing).closeSession();
    stage.run();
    CHECK(stage.bothDone());
    CHECK(stage.guest().sessions == 2);
    CHECK(stage.host().sessions == 2);
    CHECK(before.own.epoch() != stage.guest().hellos().own.epoch());
    CHECK(before.peer.epoch() != stage.guest().hellos().peer.epoch());
    CHECK((stage.end(other(closing)).ends[0] == LinkEnd::PEER_RESTARTED));
  }
}

TEST_CASE("both sessions closing at the same moment settle in one new session") {
  SerialStage stage;
  runExchange(stage);
  stage.wire.toHost.setStalled(true);
  stage.wire.toGuest.setStalled(true);
  stage.guest().closeSession();
  stage.host().closeSession();
  stage.run();
  stage.roundTrip();
  stage.roundTrip();
  CHECK(stage.bothUp());
  stage.wire.toHost.setStalled(false);
  stage.wire.toGuest.setStalled(false);
  stage.run();
  CHECK(stage.bothDone());
  CHECK(stage.guest().sessions == 2);
  CHECK(stage.host().sessions == 2);
}

TEST_CASE("a link that is UP has no timer running") {
  SerialStage stage;
  CHECK(stage.timer.nextEvent() == nullptr);
  stage.start(Role::HOST);
  stage.run();
  CHECK(stage.timer.nextEvent() != nullptr);
  stage.start(Role::GUEST);
  stage.run();
  CHECK(stage.bothDone());
  CHECK(stage.timer.nextEvent() == nullptr);
}
