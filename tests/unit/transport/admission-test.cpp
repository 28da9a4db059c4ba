#include "transport/admission.h"

#include <doctest/doctest.h>
#include <kj/async.h>
#include <kj/debug.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "protocol/limits.h"

namespace postern {
namespace {

using enum SourceClass;

struct Fixture {
  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  Admission admission{timer};

  void advance(kj::Duration time) { timer.advanceTo(timer.now() + time); }

  Admission::Slot slot() {
    auto promise = admission.whenSlot();
    REQUIRE(promise.poll(scope));
    return promise.wait(scope);
  }
  kj::OneOf<kj::Own<Admission::HalfOpen>, Refusal> admit(kj::StringPtr vm, SourceClass source = ORDINARY) {
    return admission.admit(slot(), vm, source);
  }
  kj::Own<Admission::HalfOpen> admitted(kj::StringPtr vm, SourceClass source = ORDINARY) {
    auto result = admit(vm, source);
    REQUIRE(result.is<kj::Own<Admission::HalfOpen>>());
    return kj::mv(result.get<kj::Own<Admission::HalfOpen>>());
  }
  bool refused(kj::StringPtr vm, Refusal why, SourceClass source = ORDINARY) {
    auto result = admit(vm, source);
    return result.is<Refusal>() && result.get<Refusal>() == why;
  }
  // Attempts that fail at once, until one is refused.
  unsigned failuresUntilRefused(kj::StringPtr vm, SourceClass source = ORDINARY) {
    for (unsigned count = 0; count < 1000; ++count) {
      auto result = admit(vm, source);
      if (result.is<Refusal>()) {
        CHECK(result.get<Refusal>() == Refusal::TOO_OFTEN);
        return count;
      }
    }
    return 1000;
  }
};

// T22
TEST_CASE("a VM has two half-open attempts; a third is refused until one ends, and other VMs do not notice") {
  Fixture f;
  auto first = f.admitted("web1");
  auto second = f.admitted("web1");
  CHECK(f.refused("web1", Refusal::TOO_MANY_HALF_OPEN));
  auto other = f.admitted("db1");
  second = nullptr;  // cancelled half-way
  second = f.admitted("web1");
  CHECK(f.refused("web1", Refusal::TOO_MANY_HALF_OPEN));
  first->succeeded();
  first = f.admitted("web1");
}

// T23
TEST_CASE("failed attempts come at the rate after the burst, and a refused attempt is admitted when retried later") {
  Fixture f;
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKE_BURST);
  auto interval = 1 * kj::SECONDS / int64_t(limits::HANDSHAKES_PER_SECOND);
  f.advance(interval - 1 * kj::NANOSECONDS);
  CHECK(f.refused("web1", Refusal::TOO_OFTEN));
  f.advance(1 * kj::NANOSECONDS);
  CHECK(f.failuresUntilRefused("web1") == 1);
  f.advance(1 * kj::SECONDS);
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKES_PER_SECOND);
  f.advance(1 * kj::HOURS);
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKE_BURST);
}

TEST_CASE("refusals cost no token: a flood does not delay the moment when the VM is welcome again") {
  Fixture f;
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKE_BURST);
  for (int i = 0; i < 1000; ++i) CHECK(f.refused("web1", Refusal::TOO_OFTEN));
  f.advance(200 * kj::MILLISECONDS);
  auto attempt = f.admitted("web1");
}

// T23
TEST_CASE("a success gives its token back, so that only failures are limited") {
  Fixture f;
  for (int i = 0; i < 1000; ++i) f.admitted("web1")->succeeded();
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKE_BURST);
}

TEST_CASE("a success gives back one token and not more than the bucket holds") {
  Fixture f;
  auto attempt = f.admitted("web1");
  f.advance(1 * kj::HOURS);
  attempt->succeeded();
  attempt = nullptr;
  CHECK(f.failuresUntilRefused("web1") == limits::HANDSHAKE_BURST);
}

// T24
TEST_CASE("an unprivileged flood in a guest leaves the agent's own share alone") {
  Fixture f;
  CHECK(f.failuresUntilRefused("web1", ORDINARY) == limits::HANDSHAKE_BURST);
  f.advance(400 * kj::MILLISECONDS);
  auto hang1 = f.admitted("web1", ORDINARY);
  auto hang2 = f.admitted("web1", ORDINARY);
  CHECK(f.refused("web1", Refusal::TOO_MANY_HALF_OPEN, ORDINARY));
  auto agent1 = f.admitted("web1", PRIVILEGED);
  auto agent2 = f.admitted("web1", PRIVILEGED);
  CHECK(f.refused("web1", Refusal::TOO_MANY_HALF_OPEN, PRIVILEGED));
  agent1->succeeded();
  agent2 = nullptr;
  CHECK(f.failuresUntilRefused("web1", PRIVILEGED) == limits::HANDSHAKE_BURST - 1);
  CHECK(sourceClassOfVsockPort(1023) == PRIVILEGED);
  CHECK(sourceClassOfVsockPort(1024) == ORDINARY);
  CHECK(sourceClassOfVsockPort(0xffffffff) == ORDINARY);
}

// T22
TEST_CASE("above the total, waiters get slots in the order in which they asked") {
  Fixture f;
  kj::Vector<Admission::Slot> slots;
  for (unsigned i = 0; i < limits::MAX_HALF_OPEN; ++i) slots.add(f.slot());
  CHECK(f.admission.halfOpen() == limits::MAX_HALF_OPEN);

  auto first = f.admission.whenSlot();
  auto second = f.admission.whenSlot();
  auto third = f.admission.whenSlot();
  CHECK(!first.poll(f.scope));
  slots.removeLast();
  CHECK(first.poll(f.scope));
  CHECK(!second.poll(f.scope));
  slots.removeLast();
  CHECK(second.poll(f.scope));
  CHECK(!third.poll(f.scope));
  { auto slot = first.wait(f.scope); }  // used and freed: on to the third
  CHECK(third.poll(f.scope));
  CHECK(f.admission.halfOpen() == limits::MAX_HALF_OPEN);
}

TEST_CASE("a waiter that is cancelled before or after its turn takes no slot along") {
  Fixture f;
  kj::Vector<Admission::Slot> slots;
  for (unsigned i = 0; i < limits::MAX_HALF_OPEN; ++i) slots.add(f.slot());
  kj::Maybe<kj::Promise<Admission::Slot>> before = f.admission.whenSlot();
  kj::Maybe<kj::Promise<Admission::Slot>> after = f.admission.whenSlot();
  auto last = f.admission.whenSlot();
  before = nullptr;
  slots.removeLast();  // goes to `after`, which never looks at it
  CHECK(!last.poll(f.scope));
  after = nullptr;
  CHECK(last.poll(f.scope));
  {
    auto slot = last.wait(f.scope);
    CHECK(f.admission.halfOpen() == limits::MAX_HALF_OPEN);
  }
  slots.clear();
  CHECK(f.admission.halfOpen() == 0);
}

TEST_CASE("a refused attempt and a finished one free their slots of the total") {
  Fixture f;
  auto first = f.admitted("web1");
  auto second = f.admitted("web1");
  CHECK(f.admission.halfOpen() == 2);
  CHECK(f.refused("web1", Refusal::TOO_MANY_HALF_OPEN));
  CHECK(f.admission.halfOpen() == 2);
  first->succeeded();
  CHECK(f.admission.halfOpen() == 1);
  first = nullptr;
  CHECK(f.admission.halfOpen() == 1);
  second = nullptr;
  CHECK(f.admission.halfOpen() == 0);
}

TEST_CASE("VMs that are idle and have full buckets are forgotten; those with an attempt or a debt are not") {
  Fixture f;
  for (int i = 0; i < 500; ++i) f.admitted(kj::str("vm", i));
  auto hanging = f.admitted("hanging");
  CHECK(f.admission.vmsRemembered() == 501);
  f.advance(1900 * kj::MILLISECONDS);
  CHECK(f.failuresUntilRefused("debtor") == limits::HANDSHAKE_BURST);
  f.advance(100 * kj::MILLISECONDS);
  f.admitted("someone");
  CHECK(f.admission.vmsRemembered() == 3);
  CHECK(f.refused("debtor", Refusal::TOO_OFTEN));
  hanging->succeeded();
  f.advance(1 * kj::HOURS);
  f.admitted("someone else");
  CHECK(f.admission.vmsRemembered() == 1);
}

TEST_CASE("an attempt succeeds once, and each refusal has its words") {
  Fixture f;
  auto attempt = f.admitted("web1");
  attempt->succeeded();
  CHECK_THROWS_AS(attempt->succeeded(), kj::Exception);
  CHECK((describe(Refusal::TOO_OFTEN) != describe(Refusal::TOO_MANY_HALF_OPEN)));
}

}  // namespace
}  // namespace postern
