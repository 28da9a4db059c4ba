#include <doctest/doctest.h>

#include "tests/support/serial-end.h"

using namespace postern;
using namespace postern::test;

// An end dies in the middle of a byte count, is started again, and both ends have to find each other. Every byte of
// every frame of the exchange is tried, SYNCs included, in both roles, with what can happen to the bytes on the way.

namespace {

enum class Cut { AFTER_WRITING, AFTER_READING };

// What becomes of the bytes that lie in the pipe when the victim has died.
enum class Aftermath {
  ALL_STAYS,
  UNREAD_VANISHES,   // what the victim had not read: the guest's kernel does that when a port closes
  WRITTEN_VANISHES,  // what the victim wrote and the other has not read
  ALL_VANISHES,
  OTHER_DIES_AS_WELL,
};

void happen(Aftermath aftermath, SerialStage& stage, Role victim) {
  switch (aftermath) {
    case Aftermath::ALL_STAYS:
      break;
    case Aftermath::UNREAD_VANISHES:
      stage.into(victim).drop();
      break;
    case Aftermath::WRITTEN_VANISHES:
      stage.outOf(victim).drop();
      break;
    case Aftermath::ALL_VANISHES:
      stage.into(victim).drop();
      stage.outOf(victim).drop();
      break;
    case Aftermath::OTHER_DIES_AS_WELL:
      stage.kill(other(victim));
      break;
  }
}

void dieAndComeBack(Script script, Role victim, Cut cut, uint64_t at, Aftermath aftermath) {
  CAPTURE((victim == Role::GUEST));
  CAPTURE((cut == Cut::AFTER_WRITING));
  CAPTURE(at);
  CAPTURE(int(aftermath));

  SerialStage stage(script, at);
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  auto& pipe = stage.end(victim).pipe;
  (cut == Cut::AFTER_WRITING ? pipe.writesLeft : pipe.readsLeft) = at;
  stage.run();

  stage.kill(victim);
  happen(aftermath, stage, victim);
  stage.wire.toHost.setStalled(true);
  stage.wire.toGuest.setStalled(true);
  stage.start(victim);
  if (aftermath == Aftermath::OTHER_DIES_AS_WELL) stage.start(other(victim));
  stage.run();

  // No timer: the clock stands still.
  stage.roundTrip();
  stage.roundTrip();
  REQUIRE(stage.bothUp());
  stage.wire.toHost.setStalled(false);
  stage.wire.toGuest.setStalled(false);
  stage.run();
  REQUIRE(stage.bothDone());
  REQUIRE(stage.staleFrames() == 0);
}

struct Totals {
  uint64_t guestWrites;
  uint64_t hostWrites;
  uint64_t of(Role victim, Cut cut) const {
    return (victim == Role::GUEST) == (cut == Cut::AFTER_WRITING) ? guestWrites : hostWrites;
  }
};

Totals undisturbed(Script script) {
  SerialStage stage(script);
  stage.start(Role::HOST);
  stage.start(Role::GUEST);
  stage.run();
  REQUIRE(stage.bothDone());
  return {stage.guest().pipe.bytesWritten, stage.host().pipe.bytesWritten};
}

void tryPositions(Script script, Aftermath aftermath, uint64_t stride) {
  auto totals = undisturbed(script);
  for (Role victim : {Role::GUEST, Role::HOST}) {
    for (Cut cut : {Cut::AFTER_WRITING, Cut::AFTER_READING}) {
      for (uint64_t at = 0; at <= totals.of(victim, cut); at += stride) {
        dieAndComeBack(script, victim, cut, at, aftermath);
      }
    }
  }
}

}  // namespace

// T32
TEST_CASE("an end killed at any byte comes back within two round trips, with the pipe's contents left lying") {
  tryPositions(smallScript(), Aftermath::ALL_STAYS, 1);
}

TEST_CASE("an end killed at any byte comes back when what it had not read vanished with it") {
  tryPositions(smallScript(), Aftermath::UNREAD_VANISHES, 1);
}

TEST_CASE("an end killed at any byte comes back when what it wrote last is lost") {
  tryPositions(smallScript(), Aftermath::WRITTEN_VANISHES, 1);
}

TEST_CASE("an end killed at any byte comes back when everything under way is lost") {
  tryPositions(smallScript(), Aftermath::ALL_VANISHES, 1);
}

TEST_CASE("both ends killed, one of them at any byte, find each other over what they left lying") {
  tryPositions(smallScript(), Aftermath::OTHER_DIES_AS_WELL, 1);
}

TEST_CASE("an end killed in the middle of records of 64 KiB comes back, whatever happens to the bytes under way") {
  for (auto aftermath : {Aftermath::ALL_STAYS, Aftermath::UNREAD_VANISHES, Aftermath::WRITTEN_VANISHES,
                         Aftermath::ALL_VANISHES, Aftermath::OTHER_DIES_AS_WELL}) {
    tryPositions(largeScript(), aftermath, 6007);
  }
}

TEST_CASE("an end that dies again and again, each time one byte later, leaves no more than its traces") {
  SerialStage stage;
  stage.start(Role::GUEST);
  for (uint64_t at = 1; at < 500; ++at) {
    stage.start(Role::HOST);
    stage.host().pipe.writesLeft = at;
    stage.run();
  }
  stage.start(Role::HOST);
  stage.run();
  CHECK(stage.bothDone());
}

// T32
TEST_CASE("a run of bytes lost anywhere between two living ends is recovered from, by a timer at the latest") {
  auto totals = undisturbed(smallScript());
  for (Role receiver : {Role::GUEST, Role::HOST}) {
    uint64_t total = receiver == Role::HOST ? totals.guestWrites : totals.hostWrites;
    for (uint64_t from = 0; from < total; from += 3) {
      CAPTURE(from);
      SerialStage stage(smallScript(), from);
      auto& direction = stage.into(receiver);
      // The sender goes on to write; the receiver reads `from` bytes and finds the next lot gone.
      stage.start(Role::HOST);
      stage.start(Role::GUEST);
      auto& pipe = stage.end(receiver).pipe;
      direction.readAtMost = 1;
      while (pipe.bytesRead < from && stage.loop.isRunnable()) stage.loop.run(1);
      direction.drop();
      direction.readAtMost = kj::maxValue;
      stage.run();
      // What the session's own deadline does when a lost frame leaves both waiting: HANDSHAKE_DEADLINE or
      // PING_DEADLINE.
      for (unsigned seconds = 0; seconds < 12 && !stage.bothDone(); ++seconds) {
        stage.advance(kj::SECONDS);
        if (seconds % 4 == 3 && stage.guest().isUp()) stage.guest().closeSession();
        stage.run();
      }
      REQUIRE(stage.bothDone());
    }
  }
}
