#pragma once
// PowerWay: how this system is shut down, restarted and suspended. On the broker's side. Three ways:
//
//   systemd   `systemctl poweroff|reboot|suspend --no-block`; inhibitor locks by logind
//   syscall   for a guest without a service manager: SIGTERM to everything, SIGKILL 5 s later, file systems read-only,
//             reboot(2); suspend by /sys/power/state (power-syscall.h)
//   command   a program of the administrator's, with "shutdown", "restart" or "suspend" as its last argument

#include <kj/async.h>
#include <kj/string.h>

#include "guest-agent/broker/broker-client.h"
#include "transport/children/children.h"

namespace postern::guest {

kj::StringPtr actionName(PowerAction action);  // "shutdown", "restart", "suspend"
kj::StringPtr callName(PowerAction action);    // "power.shutdown" ...

class PowerWay {
 public:
  virtual ~PowerWay() noexcept(false) {}

  // Who holds off the action with an inhibitor lock; empty where there is no such thing, or its keeper does not answer
  // (which is logged).
  virtual kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction action, Children& children) = 0;
  // Null: it was started and will go on whatever becomes of this process. Otherwise a line for a person, and nothing
  // was done.
  virtual kj::Promise<kj::Maybe<kj::String>> start(PowerAction action, Children& children) = 0;
};

// `probeCommand` and `probeIdentity` as in BrokerOptions: inhibitors are asked for in a process of its own.
kj::Own<PowerWay> newSystemdPower(kj::Array<kj::String> probeCommand, kj::Maybe<Identity> probeIdentity);
kj::Own<PowerWay> newSyscallPower();
kj::Own<PowerWay> newCommandPower(kj::Array<kj::String> argv);

// Whether systemd runs this machine: the systemd way is then the one to take, otherwise the syscall way.
bool systemdRunsHere();

}  // namespace postern::guest
