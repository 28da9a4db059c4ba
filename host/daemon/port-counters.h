#pragma once
// PortCounters: what has passed one VM's port, and what was turned away. A session process tells absolute numbers of
// its own life; these go on over its restarts: what an ended process told last becomes part of the base. What posternd
// turns away itself is counted here.
//
// So they are exact against what passed, but for what a process that was killed had not told yet. They begin with
// posternd, or with the session process that it found alive.

#include <kj/map.h>

#include "host/board/board-port.h"
#include "host/daemon/channel-claims.h"

namespace postern::host {

// That are remembered of one VM; what passes others is counted by the port alone.
constexpr size_t MAX_COUNTED_RULES = 1024;

class PortCounters {
 public:
  // By policy; `by` is the id of the rule that denied, or the reason's word.
  void denied(kj::StringPtr by, uint64_t times = 1);
  // What policy allowed, and posternd could not bring about.
  void refused() { ++refusedHere; }

  void claimed(PortClaim claim);
  void sessionEnded();

  // All but whether it is blocked.
  BoardPort forBoard() const;
  void write(schema::Port::Builder port) const;

  template <typename Do>
  void forEachRule(Do&& what) const {
    for (auto& entry : rules) what(kj::StringPtr(entry.key), entry.value.sum());
  }

 private:
  struct Pass {
    PassClaim base;         // of session processes that have ended; none is active
    PassClaim latest;       // of the present one
    bool isClaimed = true;  // a rule: with what the process told last

    PassClaim sum() const { return base + latest; }
    void end();
  };

  Pass port;
  uint64_t mirrorDroppedBefore = 0;
  uint64_t mirrorDropped = 0;
  uint64_t deniedHere = 0;
  uint64_t refusedHere = 0;
  kj::String lastDenied;
  kj::TreeMap<kj::String, Pass> rules;
};

}  // namespace postern::host
