#include "host/health/health.h"

namespace postern::host {

namespace {

kj::Duration bounded(kj::Duration interval) {
  return kj::max(MIN_INTERVAL, kj::min(interval, MAX_INTERVAL));
}

Reason reasonOf(LinkLoss why) {
  switch (why) {
    case LinkLoss::CUT:
      return Reason::LINK_LOST;
    case LinkLoss::PORT_CLOSED:
      return Reason::PORT_CLOSED;
    case LinkLoss::PROTOCOL_ERROR:
      return Reason::PROTOCOL_ERROR;
  }
  return Reason::LINK_LOST;
}

Reason reasonOf(Goodbye why) {
  switch (why) {
    case Goodbye::SHUTDOWN:
      return Reason::SHUT_DOWN;
    case Goodbye::RESTART:
      return Reason::RESTARTING;
    case Goodbye::SUSPEND:
      return Reason::SUSPENDED;
    case Goodbye::AGENT_STOPPED:
      return Reason::AGENT_STOPPED;
  }
  return Reason::AGENT_STOPPED;
}

Reason reasonOf(HandshakeRefusal why) {
  switch (why) {
    case HandshakeRefusal::KEYS_REJECTED:
      return Reason::KEYS_REJECTED;
    case HandshakeRefusal::CLONED_IDENTITY:
      return Reason::CLONED_IDENTITY;
    case HandshakeRefusal::ROLLED_BACK:
      return Reason::ROLLED_BACK;
  }
  return Reason::KEYS_REJECTED;
}

}  // namespace

kj::StringPtr guestStateName(GuestState state) {
  switch (state) {
    case GuestState::RUNNING:
      return "running";
    case GuestState::STOPPING:
      return "stopping";
    case GuestState::FROZEN:
      return "frozen";
    case GuestState::RESUMED:
      return "resumed";
  }
  return "unknown";
}

Health::Health(kj::TimePoint now) : gapStart(now), settledAt(now) {
  current.since = now;
  announced = current;
}

void Health::configured(kj::TimePoint now, kj::Duration newInterval) {
  now = enter(now);
  interval = bounded(newInterval);
  if (!enrolled && link == Link::UP) {
    expectedSince = nullptr;  // what came before the enrolment was nobody's heartbeat
    startOver(now, Reason::CONNECTED);
  }
  enrolled = true;
  settle(now);
}

void Health::linkUp(kj::TimePoint now) {
  now = enter(now);
  bool seamless = link == Link::UP && absence == nullptr && !held;
  link = Link::UP;
  held = false;
  refused = nullptr;
  lastSequence = nullptr;
  if (!seamless) startOver(now, Reason::CONNECTED);
  settle(now);
}

void Health::linkLost(kj::TimePoint now, LinkLoss why) {
  lose(enter(now), reasonOf(why));
}
void Health::sessionProcessDied(kj::TimePoint now) {
  lose(enter(now), Reason::SESSION_DIED);
}
void Health::goodbye(kj::TimePoint now, Goodbye why) {
  absent(enter(now), reasonOf(why));
}
void Health::paused(kj::TimePoint now) {
  absent(enter(now), Reason::PAUSED);
}
void Health::vmGone(kj::TimePoint now) {
  absent(enter(now), Reason::VM_OFF);
}

void Health::heartbeat(kj::TimePoint now, const Heartbeat& heartbeat) {
  now = enter(now);
  if (!enrolled || link != Link::UP) return;
  KJ_IF_MAYBE (last, lastSequence) {
    if (heartbeat.sequence <= *last) return;
  }
  lastSequence = heartbeat.sequence;
  KJ_IF_MAYBE (away, absence) {
    if (isStraggler(now)) return;
    bool slept = away->reason == Reason::PAUSED || away->reason == Reason::SUSPENDED;
    startOver(now, slept ? Reason::RESUMED : Reason::CONNECTED);
  }
  count(now, heartbeat);
  settle(now);
}

void Health::handshakeRefused(kj::TimePoint now, HandshakeRefusal why) {
  now = enter(now);
  if (link != Link::UP) refused = Refused{reasonOf(why), now + REFUSED_MEMORY};
  settle(now);
}

void Health::quarantined(kj::TimePoint now) {
  now = enter(now);
  held = link == Link::UP;
  settle(now);
}

void Health::resumed(kj::TimePoint now) {
  now = enter(now);
  KJ_IF_MAYBE (away, absence) {
    if (away->reason != Reason::PAUSED && away->reason != Reason::VM_OFF) return;
    if (expectedSince == nullptr) {
      absence = nullptr;
    } else {
      startOver(now, Reason::RESUMED);
    }
  }
  settle(now);
}

void Health::vmReset(kj::TimePoint now) {
  now = enter(now);
  absence = nullptr;  // it was off, or paused: it runs now
  if (expectedSince == nullptr) return settle(now);
  absent(now, Reason::RESTARTING);
}

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

void Health::lose(kj::TimePoint now, Reason reason) {
  if (link == Link::UP) {
    link = Link::LOST;
    loss = reason;
    held = false;
    lastSequence = nullptr;
  }
  settle(now);
}

void Health::absent(kj::TimePoint now, Reason reason) {
  KJ_IF_MAYBE (away, absence) {
    // QEMU says STOP after SHUTDOWN, and a goodbye may still have been on its way.
    if (away->reason == Reason::VM_OFF || away->reason == reason) return settle(now);
  }
  absence = Absence{reason, now};
  refused = nullptr;
  settle(now);
}

bool Health::isStraggler(kj::TimePoint now) const {
  KJ_IF_MAYBE (away, absence) return now - away->at < STRAGGLER_TIME;
  return false;
}

// From nothing to a VM that should give heartbeats now. A VM that was silent before stays so until one comes.
void Health::startOver(kj::TimePoint now, Reason reason) {
  if (expectedSince == nullptr || absence != nullptr) expectedSince = now;
  absence = nullptr;
  gapStart = now;
  lastCounted = nullptr;
  good = 0;
  steady = false;
  loopLag = 0 * kj::SECONDS;
  guestState = GuestState::RUNNING;
  notYetGreen = reason;
}

void Health::count(kj::TimePoint now, const Heartbeat& heartbeat) {
  bool onTime = now - gapStart < lateLimit();
  interval = bounded(heartbeat.interval);
  loopLag = heartbeat.loopLag;
  guestState = heartbeat.state;
  if (!onTime || warning() != nullptr) {
    good = 0;
    lastCounted = now;
  } else {
    // Those that were held up and now come all at once are one.
    bool tooSoon = false;
    KJ_IF_MAYBE (last, lastCounted) tooSoon = now - *last < interval / 2;
    if (!tooSoon) {
      ++good;
      lastCounted = now;
    }
  }
  steady = steady || good >= GOOD_FOR_GREEN;
  expectedSince = now;
  gapStart = now;
  loss = nullptr;
}

kj::Duration Health::lateLimit() const {
  return interval * LATE_INTERVALS_TENTHS / int64_t(10) + LATE_SLACK;
}
kj::Duration Health::redLimit() const {
  return kj::max(interval * RED_INTERVALS, RED_AT_LEAST);
}

}  // namespace postern::host
