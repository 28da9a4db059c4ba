#pragma once
// What a person and a monitor are told about a VM: a colour, and why. Names and codes are stable: they are on the
// status board, in events and in `--json`. docs/OPERATIONS.md ("Heartbeat states") has the table.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::host {

enum class Colour : uint8_t {
  GRAY = 0,    // nothing is expected of it: never seen, not enrolled, said goodbye, off, or paused on purpose
  GREEN = 1,   // heartbeats on time
  YELLOW = 2,  // it lives, or did a moment ago; something is not as it should be
  RED = 3,     // it should be there and is not
};

// A code that was given out is never given to another reason.
enum class Reason : uint16_t {
  UNKNOWN = 0,  // never derived: what a reader shows for a code that is newer than it

  // gray
  NOT_ENROLLED = 1,
  NEVER_SEEN = 2,
  SHUT_DOWN = 3,      // said goodbye: shuts down
  RESTARTING = 4,     // said goodbye: restarts; or QEMU says RESET
  SUSPENDED = 5,      // said goodbye: suspends
  AGENT_STOPPED = 6,  // said goodbye: the agent alone ends
  PAUSED = 7,         // QEMU says STOP
  VM_OFF = 8,         // QEMU says SHUTDOWN
  MOVED = 9,          // exported to another host

  // green
  ON_TIME = 16,

  // yellow
  CONNECTED = 32,    // a session is up and has not yet shown that heartbeats come on time
  RECOVERING = 33,   // heartbeats come again, not yet two on time in a row
  LATE = 34,         // the heartbeat is overdue
  STARVED = 35,      // the agent's own loop lags
  STOPPING = 36,     // the agent says: the guest is going down
  FROZEN = 37,       // the agent says: file systems are frozen
  RESUMED = 38,      // it ran again after a gap
  QUARANTINED = 39,  // it lives, and policy holds it apart

  // yellow until the red limit, then red
  LINK_LOST = 48,       // the link ended without a goodbye
  PORT_CLOSED = 49,     // QEMU says that nobody in the guest has the port open
  PROTOCOL_ERROR = 50,  // the peer broke the protocol and was cut
  SESSION_DIED = 51,    // the host's own process for this VM ended

  // red
  SILENT = 64,           // the link is up and no heartbeat comes
  KEYS_REJECTED = 65,    // somebody knocks and cannot prove to be this VM
  CLONED_IDENTITY = 66,  // two agents with one identity
  ROLLED_BACK = 67,      // an older snapshot, which policy refuses
};

// kebab-case: "gray", "on-time". The same words in `--json`.
kj::StringPtr colourName(Colour colour);
kj::StringPtr reasonName(Reason reason);

// One short printable clause for a person: "its heartbeat is late".
kj::StringPtr describe(Reason reason);

// From a number that somebody else wrote; null and UNKNOWN where it has no meaning here.
kj::Maybe<Colour> colourFromCode(uint8_t untrustedCode);
Reason reasonFromCode(uint16_t untrustedCode);

// All reasons but UNKNOWN, for documentation, completions and tests.
kj::ArrayPtr<const Reason> allReasons();

}  // namespace postern::host
