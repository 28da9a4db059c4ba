#pragma once
// QmpWatch: one VM's QMP socket, watched: what QEMU says of its VM, and the force to end or reset it. QEMU is a program
// of the host that runs a guest, so its lines are bounded and parsed as untrusted; nothing of them but these events is
// used.
//
// Connects, and again after it was lost, with a back-off. QMP serves one client at a time and leaves a second one
// waiting without a word; while the socket is somebody else's the watch says so once and waits its turn on the one
// connection. Queries the state when it connects, so that a pause that began before is known. A QEMU that is slow is
// told as lost for the time being, and waited for on its connection up to QMP_START_DEADLINE.
//
// A QEMU that was killed says nothing: SHUTDOWN is then made of its socket, once nobody listens there, or once another
// process does. One loop. Destroying it cancels everything.

#include <kj/async-unix.h>
#include <kj/function.h>
#include <kj/string.h>
#include <kj/timer.h>

#include "protocol/random.h"
#include "transport/connection.h"

namespace postern::host {

constexpr size_t MAX_QMP_LINE_BYTES = size_t(64) << 10;
constexpr auto QMP_ANSWER_DEADLINE = 5 * kj::SECONDS;
// From QEMU's greeting to its answers to the watch's own first commands. It greets from a thread of its own before its
// machine is made, and answers after that: on a busy host much later. Giving it up earlier would lose what it says
// meanwhile, for another connection that waits just as long.
constexpr auto QMP_START_DEADLINE = 60 * kj::SECONDS;

class QmpWatch {
 public:
  enum class Event {
    STOP,  // its CPUs stand still: paused, not started yet, stopped by an error
    RESUME,
    RESET,
    SHUTDOWN,     // the VM is off, or QEMU's process has ended
    PORT_OPENED,  // a program in the guest opened the agent's port: its device has an id that ends in its name,
    PORT_CLOSED,  // org.postern.agent.0, without which QEMU does not say which port it speaks of
  };
  // Calls come from the loop, never from within a call of QmpWatch; none of them may destroy the watch.
  class Handler {
   public:
    virtual void qmpEvent(Event event) = 0;
    virtual void qmpConnected() = 0;              // followed by STOP or RESUME if a pause began or ended unseen
    virtual void qmpLost(kj::StringPtr why) = 0;  // once a loss, and once if it never connected
  };

  virtual ~QmpWatch() noexcept(false) {}

  // system_reset, or quit. Null: QEMU has acknowledged it, or its socket closed upon `quit`; otherwise a line for a
  // person.
  virtual kj::Promise<kj::Maybe<kj::String>> force(bool reset) = 0;
  // When QEMU next says SHUTDOWN, or nobody listens at its socket any more; at once if that is so already. For a reset,
  // when it next says RESET, or SHUTDOWN for the reason of one (-no-reboot); never because QEMU has gone. What it said,
  // printable. No deadline of its own; rejected if the watch is destroyed first.
  virtual kj::Promise<kj::String> whenOff(bool reset) = 0;
  virtual bool isConnected() const = 0;
};

// Where QMP is spoken. `name` is for a person: "QMP socket /run/vm/web1.qmp".
struct QmpPlace {
  kj::String name;
  // One attempt. A peer whose process is known is QEMU's own.
  kj::Function<kj::Promise<Connected>()> connect;
};

// Starts at once. Everything outlives it, but for `place` and `path`, which it keeps.
kj::Own<QmpWatch> newQmpWatch(kj::UnixEventPort& port, QmpPlace place, Random& random, QmpWatch::Handler& handler);
kj::Own<QmpWatch> newQmpWatch(kj::UnixEventPort& port, kj::StringPtr path, Random& random, QmpWatch::Handler& handler);

}  // namespace postern::host
