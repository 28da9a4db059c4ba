#pragma once
// Health of one VM: from what is known about it to a colour with a reason and since when. Guarantees:
//  - green only if a heartbeat came within the late limit, the session is up, and the two last heartbeats that count
//    were on time, unstarved and `running`: nothing that happens makes a silent VM green;
//  - no flapping: jitter below LATE_SLACK never leaves green, and whatever left green comes back through yellow;
//  - a link that is lost and back before the red limit goes yellow and green, never red;
//  - what follows does not depend on how often evaluate() is called: `since` is the moment itself, not of the look.
//
// Pure: every method is given `now`, on the monotonic clock of this machine; one that is earlier than an earlier call's
// counts as that. The owner (posternd, one a VM) calls a method for each thing that happens, and evaluate() at
// nextChange(); after either, takeChange() says whether there is something to announce. Allocates nothing.

#include <kj/common.h>
#include <kj/time.h>
#include <stdint.h>

#include "host/health/reason.h"

namespace postern::host {

// A heartbeat is late after LATE_INTERVALS_TENTHS/10 intervals and the slack. One and a half: a heartbeat that is half
// an interval behind is not a missed one. The slack covers a busy host's scheduling and the guest's timer, which do not
// grow with the interval.
constexpr int64_t LATE_INTERVALS_TENTHS = 15;
constexpr auto LATE_SLACK = 250 * kj::MILLISECONDS;

// Red after three intervals of silence, and not sooner than 3 s: a restart of the agent, a reconnect (at most 2 s
// apart, limits::CONNECT_RETRY_MAX) or a live migration's blackout is no outage.
constexpr int64_t RED_INTERVALS = 3;
constexpr auto RED_AT_LEAST = 3 * kj::SECONDS;

// Good heartbeats in a row before green. One could be the last before the next gap.
constexpr unsigned GOOD_FOR_GREEN = 2;

// The agent's own loop lag above which it is starved: half of the usual interval, at which calls visibly hang.
constexpr auto STARVED_LAG = 500 * kj::MILLISECONDS;

// What a configuration or a guest may name as interval. A guest that promised one heartbeat a year would never be red.
constexpr auto MIN_INTERVAL = 100 * kj::MILLISECONDS;
constexpr auto MAX_INTERVAL = 60 * kj::SECONDS;
constexpr auto DEFAULT_INTERVAL = 1 * kj::SECONDS;

// After a goodbye, STOP or SHUTDOWN, heartbeats that were already on their way are not signs of life for this long.
constexpr auto STRAGGLER_TIME = 1 * kj::SECONDS;

// A refused handshake is forgotten after this long: a refused agent knocks at least every 30 s
// (limits::REFUSED_RETRY_MAX), so after three times that nobody knocks any more.
constexpr auto REFUSED_MEMORY = 90 * kj::SECONDS;

enum class GuestState : uint8_t { RUNNING = 0, STOPPING = 1, FROZEN = 2, RESUMED = 3 };
kj::StringPtr guestStateName(GuestState state);

struct Heartbeat {
  uint64_t sequence = 0;                     // grows within a session; one that does not is ignored
  kj::Duration interval = DEFAULT_INTERVAL;  // until the next one, as the guest says; bounded here
  kj::Duration loopLag = 0 * kj::SECONDS;    // the worst of the agent's event loop since the last one
  GuestState state = GuestState::RUNNING;
};

enum class LinkLoss { CUT, PORT_CLOSED, PROTOCOL_ERROR };
enum class Goodbye { SHUTDOWN, RESTART, SUSPEND, AGENT_STOPPED };
enum class HandshakeRefusal { KEYS_REJECTED, CLONED_IDENTITY, ROLLED_BACK };

struct Verdict {
  Colour colour = Colour::GRAY;
  Reason reason = Reason::NOT_ENROLLED;
  kj::TimePoint since = kj::origin<kj::TimePoint>();  // since when colour and reason are these two

  // Whether both say the same; `since` may differ.
  bool sameAs(const Verdict& other) const { return colour == other.colour && reason == other.reason; }
};

class Health {
 public:
  // Gray, not enrolled, since `now`.
  explicit Health(kj::TimePoint now);

  // The VM is enrolled; `interval` counts until a heartbeat says another. Again after a reload.
  void configured(kj::TimePoint now, kj::Duration interval = DEFAULT_INTERVAL);

  // From the VM's session. linkUp: CONFIRM has decrypted (also when a new posternd finds a session that lives). One
  // that replaces a session that is up begins a new numbering and changes nothing else. Heartbeats without a session,
  // and a link that is lost twice, are ignored.
  void linkUp(kj::TimePoint now);
  void linkLost(kj::TimePoint now, LinkLoss why = LinkLoss::CUT);
  void sessionProcessDied(kj::TimePoint now);
  void heartbeat(kj::TimePoint now, const Heartbeat& heartbeat);
  // Of a guest that goes down or restarts, heartbeats that say `stopping` go on until its end and change nothing.
  void goodbye(kj::TimePoint now, Goodbye why);

  // A handshake was refused. While a session is up, and until the red limit, this changes nothing: anybody in a guest
  // can knock. After it, and for a VM that was never seen, it is the reason of red.
  void handshakeRefused(kj::TimePoint now, HandshakeRefusal why);
  // Policy holds the VM's present session apart; ends with the session.
  void quarantined(kj::TimePoint now);

  // From QMP: STOP, RESUME, RESET, SHUTDOWN.
  void paused(kj::TimePoint now);
  void resumed(kj::TimePoint now);
  void vmReset(kj::TimePoint now);
  void vmGone(kj::TimePoint now);

  const Verdict& evaluate(kj::TimePoint now);

  // When the verdict changes by itself if nothing happens; null if never.
  kj::Maybe<kj::TimePoint> nextChange() const;

  struct Change {
    Verdict before;
    Verdict after;
  };
  // What changed between the last call and the last evaluate() or event: once a change, null if it says the same.
  kj::Maybe<Change> takeChange();

 private:
  enum class Link : uint8_t { NEVER, UP, LOST };

  kj::TimePoint enter(kj::TimePoint now);
  void settle(kj::TimePoint at);
  Verdict derive(kj::TimePoint at) const;
  Verdict deriveLately(kj::TimePoint at) const;
  kj::Maybe<Reason> warning() const;
  void lose(kj::TimePoint now, Reason reason);
  void absent(kj::TimePoint now, Reason reason);
  bool isStraggler(kj::TimePoint now) const;
  void startOver(kj::TimePoint now, Reason reason);
  void count(kj::TimePoint now, const Heartbeat& heartbeat);
  kj::Duration lateLimit() const;
  kj::Duration redLimit() const;

  struct Absence {  // on purpose
    Reason reason;
    kj::TimePoint at;
  };
  struct Refused {
    Reason reason;
    kj::TimePoint until;
  };

  bool enrolled = false;
  kj::Duration interval = DEFAULT_INTERVAL;
  Link link = Link::NEVER;
  kj::Maybe<Reason> loss;                  // why the link was last lost; until the next heartbeat
  Reason notYetGreen = Reason::CONNECTED;  // yellow's reason until GOOD_FOR_GREEN
  bool held = false;                       // quarantined
  kj::Maybe<Absence> absence;
  kj::Maybe<Refused> refused;

  // Silence counts from the last heartbeat, or from when one was first expected; null: never seen.
  kj::Maybe<kj::TimePoint> expectedSince;
  kj::TimePoint gapStart;  // lateness counts from the last heartbeat, the session's start or the end of a pause
  kj::Maybe<kj::TimePoint> lastCounted;
  kj::Maybe<uint64_t> lastSequence;  // of this session
  kj::Duration loopLag = 0 * kj::SECONDS;
  GuestState guestState = GuestState::RUNNING;
  unsigned good = 0;    // good heartbeats in a row
  bool steady = false;  // `good` reached GOOD_FOR_GREEN since green was last left

  kj::TimePoint settledAt;
  Verdict current;
  Verdict announced;
};

}  // namespace postern::host
