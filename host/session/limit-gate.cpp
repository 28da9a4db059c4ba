#include "host/session/limit-gate.h"

#include <kj/debug.h>

#include <algorithm>

namespace postern::host {

namespace {

// schema::Limit's `zero`.
enum ZeroBit : uint16_t { RATE = 1, BURST = 2, PEAK = 4, OPEN = 8, CALLS = 16, BYTES = 32 };

// What one call costs of a bucket that has an hour's calls come in each hour.
constexpr uint64_t CALL_COST = 3600;

// A piece of a channel, which a burst by default does not hold back.
constexpr uint64_t PIECE_BYTES = 64 << 10;

// Where a rate has no burst: a tenth of a second's, enough that a loop which is late by some milliseconds catches up;
// for a low rate a piece, but not so much that ten seconds would see a twentieth more than the rate.
uint64_t burstFor(uint64_t rate) {
  return std::max(rate / 10, std::min(PIECE_BYTES, rate / 4));
}
// No timer is finer than some milliseconds: with a smaller burst the rate itself would not be had.
uint64_t leastBurst(uint64_t rate) {
  return rate / 100;
}

uint64_t saturatedTimes(uint64_t a, uint64_t b) {
  return a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

bool isZero(const kj::Maybe<uint64_t>& bound) {
  KJ_IF_MAYBE (b, bound) return *b == 0;
  return false;
}

constexpr auto FOR_EVER = 100 * 365 * kj::DAYS;

}  // namespace

LimitNumbers LimitNumbers::of(schema::Limit::Reader limit) {
  auto bound = [zero = limit.getZero()](uint64_t number, ZeroBit bit) -> kj::Maybe<uint64_t> {
    if (number > 0) return number;
    if ((zero & bit) != 0) return uint64_t(0);
    return nullptr;
  };
  return {bound(limit.getRate(), RATE), bound(limit.getBurst(), BURST), bound(limit.getPeak(), PEAK),
          bound(limit.getOpen(), OPEN), bound(limit.getCalls(), CALLS), bound(limit.getBytes(), BYTES)};
}

bool LimitNumbers::operator==(const LimitNumbers& other) const {
  return rate == other.rate && burst == other.burst && peak == other.peak && open == other.open &&
         calls == other.calls && bytes == other.bytes;
}

LimitGate::~LimitGate() noexcept(false) {
  KJ_ASSERT(waiting.empty(), "a piece waits at a gate that is gone");
}

void LimitGate::set(const LimitNumbers& numbers, kj::TimePoint now) {
  if (numbers == now_) return;
  now_ = numbers;
  auto perSecond = numbers.rate.orDefault(0), atPeak = numbers.peak.orDefault(0), anHour = numbers.calls.orDefault(0);
  rate.set(perSecond, std::max(numbers.burst.orDefault(burstFor(perSecond)), leastBurst(perSecond)), now);
  peak.set(atPeak, burstFor(atPeak), now);
  calls.set(anHour, saturatedTimes(anHour, CALL_COST), now);
  letIn();
}

// T104
kj::Maybe<LimitBound> LimitGate::refusal(kj::TimePoint now) {
  for (auto* bound : {&now_.rate, &now_.peak, &now_.open, &now_.calls, &now_.bytes}) {
    if (isZero(*bound)) return LimitBound::ZERO;
  }
  KJ_IF_MAYBE (most, now_.open) {
    if (open >= *most) return LimitBound::OPEN;
  }
  if (now_.calls != nullptr && !calls.canTake(CALL_COST, now)) return LimitBound::CALLS;
  return nullptr;
}

void LimitGate::enter(kj::TimePoint now) {
  ++open;
  if (now_.calls != nullptr) calls.take(CALL_COST, now);
}

void LimitGate::leave() {
  KJ_ASSERT(open > 0);
  --open;
}

LimitGate::Turn LimitGate::take(uint64_t bytes, kj::TimePoint now) {
  return {rate.take(bytes, now), peak.take(bytes, now)};
}

kj::Duration LimitGate::waitFor(const Turn& turn, kj::TimePoint now) {
  // What was open when its rate became 0 stands still until there is another.
  if (isZero(now_.rate) || isZero(now_.peak)) return FOR_EVER;
  return std::max(rate.waitFor(turn.rate, now), peak.waitFor(turn.peak, now));
}

bool LimitGate::fits(size_t bytes) const {
  KJ_IF_MAYBE (most, now_.bytes) {
    if (*most == 0) return false;
    return inside == 0 || (inside < *most && bytes <= *most - inside);
  }
  return true;
}

void LimitGate::giveRoom(size_t bytes) {
  KJ_ASSERT(bytes <= inside);
  inside -= bytes;
  letIn();
}

void LimitGate::stopWaiting(Waiter& waiter) {
  waiting.remove(&waiter);
  letIn();  // it may have been in the others' way
}

void LimitGate::letIn() {
  while (!waiting.empty() && fits(waiting.front()->bytes())) {
    auto& next = *waiting.front();
    waiting.pop_front();
    next.tryAgain();
  }
}

bool LimitGate::isIdle(kj::TimePoint now) {
  return open == 0 && inside == 0 && rate.isFull(now) && peak.isFull(now) && calls.isFull(now);
}

kj::String describeRefusal(LimitBound bound, const LimitGate& gate, kj::StringPtr whose, kj::StringPtr what) {
  switch (bound) {
    case LimitBound::OPEN:
      return kj::str(whose, " has room for ", KJ_ASSERT_NONNULL(gate.numbers().open), ' ', what,
                     " at a time, and they are under way; try again when one is over");
    case LimitBound::CALLS:
      return kj::str(whose, " has had all of the ", KJ_ASSERT_NONNULL(gate.numbers().calls), ' ', what,
                     " that may begin in an hour; try again later");
    case LimitBound::ZERO:
      break;
  }
  return kj::str(whose, " has a limit of 0: nothing passes it");
}

}  // namespace postern::host
