#pragma once
// QmpWatch: one VM's QMP socket, watched: what QEMU says of its VM, and the force to end or reset it. QEMU is a program of
// the host that runs a guest, so its lines are bounded and parsed as untrusted; nothing of them but these events is used.
//
// Connects, and again after it was lost (QMP serves one client at a time; somebody else's is not fought over). Queries the
// state when it connects, so that a pause that began before is known. One loop.

#include <kj/async-unix.h>
#include <kj/string.h>
#include <kj/timer.h>

#include "protocol/random.h"

namespace postern::host {

constexpr size_t MAX_QMP_LINE_BYTES = size_t(64) << 10;
constexpr auto QMP_ANSWER_DEADLINE = 5 * kj::SECONDS;

class QmpWatch {
 public:
  enum class Event {
    STOP,        // paused
    RESUME,
    RESET,
    SHUTDOWN,    // the VM is off
    PORT_OPENED,  // a program in the guest opened the agent's port (VSERPORT_CHANGE of a port with an id)
    PORT_CLOSED,
  };
  class Handler {
   public:
    virtual void qmpEvent(Event event) = 0;
    virtual void qmpConnected() = 0;
    virtual void qmpLost(kj::StringPtr why) = 0;  // once a loss, and once if it never connected
  };

  virtual ~QmpWatch() noexcept(false) {}

  // system_reset, or quit. Null: QEMU has acknowledged it; otherwise a line for a person.
  virtual kj::Promise<kj::Maybe<kj::String>> force(bool reset) = 0;
  // When QEMU next says SHUTDOWN (reset: RESET), or its socket ends for good.
  virtual kj::Promise<kj::String> whenOff(bool reset) = 0;
  virtual bool isConnected() const = 0;
};

// Starts at once. Everything outlives it; `path` is copied.
kj::Own<QmpWatch> newQmpWatch(kj::UnixEventPort& port, kj::StringPtr path, Random& random, QmpWatch::Handler& handler);

}  // namespace postern::host
