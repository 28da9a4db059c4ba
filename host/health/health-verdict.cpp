// What follows from what Health knows, and when it changes by itself. health.cpp has the events.

#include "host/health/health.h"

namespace postern::host {

const Verdict& Health::evaluate(kj::TimePoint now) {
  settle(enter(now));
  return current;
}

kj::Maybe<kj::TimePoint> Health::nextChange() const {
  kj::TimePoint candidates[] = {kj::maxValue, kj::maxValue, kj::maxValue};
  KJ_IF_MAYBE (knock, refused) candidates[0] = knock->until;
  KJ_IF_MAYBE (expected, expectedSince) {
    candidates[1] = *expected + redLimit();
    candidates[2] = gapStart + lateLimit();
  }
  kj::Maybe<kj::TimePoint> earliest;
  for (auto at : candidates) {
    if (at <= settledAt || at == kj::maxValue || derive(at).sameAs(current)) continue;
    KJ_IF_MAYBE (best, earliest) {
      if (at >= *best) continue;
    }
    earliest = at;
  }
  return earliest;
}

kj::Maybe<Health::Change> Health::takeChange() {
  if (current.sameAs(announced)) return nullptr;
  Change change{announced, current};
  announced = current;
  return change;
}

// Brings the verdict up to `now`, with each change at its own moment.
kj::TimePoint Health::enter(kj::TimePoint now) {
  now = kj::max(now, settledAt);
  for (;;) {
    auto next = nextChange();
    KJ_IF_MAYBE (at, next) {
      if (*at > now) break;
      settle(*at);
    } else {
      break;
    }
  }
  settledAt = now;
  return now;
}

void Health::settle(kj::TimePoint at) {
  settledAt = at;
  auto verdict = derive(at);
  if (verdict.colour != Colour::GREEN) steady = false;
  if (verdict.colour == Colour::YELLOW || verdict.colour == Colour::RED) {
    if (verdict.reason == Reason::RESUMED) {
      notYetGreen = Reason::RESUMED;
    } else if (verdict.reason != Reason::CONNECTED) {
      notYetGreen = Reason::RECOVERING;
    }
  }
  if (!verdict.sameAs(current)) current = verdict;
}

Verdict Health::derive(kj::TimePoint at) const {
  if (isMoved) return {Colour::GRAY, Reason::MOVED, at};
  if (!enrolled) return {Colour::GRAY, Reason::NOT_ENROLLED, at};
  KJ_IF_MAYBE (away, absence) return {Colour::GRAY, away->reason, at};
  KJ_IF_MAYBE (expected, expectedSince) {
    if (at - *expected < redLimit()) return deriveLately(at);
  }
  KJ_IF_MAYBE (knock, refused) {
    if (at < knock->until) return {Colour::RED, knock->reason, at};
  }
  if (expectedSince == nullptr) return {Colour::GRAY, Reason::NEVER_SEEN, at};
  // A session that has just come back and not yet said anything does not change what a person reads.
  bool stillLost = link == Link::LOST || at - gapStart < lateLimit();
  return {Colour::RED, stillLost ? loss.orDefault(Reason::SILENT) : Reason::SILENT, at};
}

// Heard from before the red limit.
Verdict Health::deriveLately(kj::TimePoint at) const {
  bool late = at - gapStart >= lateLimit();
  if (link == Link::LOST) return {Colour::YELLOW, loss.orDefault(Reason::LINK_LOST), at};
  if (held) return {Colour::YELLOW, Reason::QUARANTINED, at};
  if (late) return {Colour::YELLOW, Reason::LATE, at};
  KJ_IF_MAYBE (reason, warning()) return {Colour::YELLOW, *reason, at};
  if (!steady) return {Colour::YELLOW, notYetGreen, at};
  return {Colour::GREEN, Reason::ON_TIME, at};
}

// What the last heartbeat itself complains of.
kj::Maybe<Reason> Health::warning() const {
  switch (guestState) {
    case GuestState::RUNNING:
      break;
    case GuestState::STOPPING:
      return Reason::STOPPING;
    case GuestState::FROZEN:
      return Reason::FROZEN;
    case GuestState::RESUMED:
      return Reason::RESUMED;
  }
  if (loopLag > STARVED_LAG) return Reason::STARVED;
  return nullptr;
}

kj::Duration Health::lateLimit() const {
  return interval * LATE_INTERVALS_TENTHS / int64_t(10) + LATE_SLACK;
}
kj::Duration Health::redLimit() const {
  return kj::max(interval * RED_INTERVALS, RED_AT_LEAST);
}

}  // namespace postern::host
