#pragma once
// SessionRenewal: after an upgrade, replaces session processes of another build that an earlier posternd has left. One
// VM at a time and only while nothing is under way in it, RENEWAL_PAUSE apart; the next has its turn when the one
// before is back, so that a build that does not work costs one VM. Owned by the Daemon; one loop.

#include <kj/map.h>
#include <kj/time.h>

#include "host/daemon/vm.h"

namespace postern::host {

constexpr auto RENEWAL_PAUSE = 2 * kj::SECONDS;
// A guest that was connected and has not come back by then has reasons of its own.
constexpr auto RENEWAL_PATIENCE = 30 * kj::SECONDS;

class SessionRenewal {
 public:
  explicit SessionRenewal(kj::TimePoint now) : turnBegan(now) {}

  using Vms = kj::TreeMap<kj::String, kj::Own<Vm>>;

  // To be called a few times a second.
  void tick(kj::TimePoint now, Vms& vms);

 private:
  kj::String last;  // whose turn it was
  bool wasConnected = false;
  kj::TimePoint turnBegan;

  bool isBack(kj::TimePoint now, Vms& vms) const;
};

}  // namespace postern::host
