#pragma once
// Damper: what somebody can make this host write down (a line of the audit log, of the journal, an event) without
// having a right to anything, bounded: so many at once for each who does it, then so many a minute. What was left out
// is counted, and told with the next that is written.

#include <kj/map.h>
#include <kj/string.h>
#include <kj/timer.h>

namespace postern::host {

class Damper {
 public:
  Damper(const kj::MonotonicClock& clock, unsigned burst, unsigned perMinute);

  // Null: leave it out. Otherwise write it, and that so many of `who`'s were left out before it.
  kj::Maybe<uint64_t> take(kj::StringPtr who);

 private:
  struct Account {
    kj::TimePoint nextFree;
    uint64_t leftOut = 0;
  };
  static constexpr size_t MAX_ACCOUNTS = 4096;

  const kj::MonotonicClock& clock;
  const kj::Duration interval;
  const unsigned burst;
  kj::HashMap<kj::String, Account> accounts;

  void forgetIdle(kj::TimePoint full);
};

// What a line says of those that were left out before it; empty if there were none.
kj::String untold(uint64_t leftOut);

}  // namespace postern::host
