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

// A shutdown that was announced takes its time, and who is heard of until its end has not come back.
bool isGoingDown(Reason absence, GuestState state) {
  return state == GuestState::STOPPING && (absence == Reason::SHUT_DOWN || absence == Reason::RESTARTING);
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
    if (isStraggler(now) || isGoingDown(away->reason, heartbeat.state)) return;
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

}  // namespace postern::host
