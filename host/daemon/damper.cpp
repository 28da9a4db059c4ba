#include "host/daemon/damper.h"

namespace postern::host {

Damper::Damper(const kj::MonotonicClock& clock, unsigned burst, unsigned perMinute)
    : clock(clock), interval(1 * kj::MINUTES / perMinute), burst(burst) {}

kj::Maybe<uint64_t> Damper::take(kj::StringPtr who) {
  auto now = clock.now();
  auto full = now - interval * int64_t(burst);
  if (accounts.size() >= MAX_ACCOUNTS && accounts.find(who) == nullptr) {
    forgetIdle(full);
    // Nobody is idle: the one that came last shares an account with those that come after it.
    if (accounts.size() >= MAX_ACCOUNTS) who = "";
  }
  auto& account = accounts.findOrCreate(who, [&]() {
    return kj::HashMap<kj::String, Account>::Entry{kj::str(who), Account{full, 0}};
  });
  auto next = kj::max(account.nextFree, full) + interval;
  if (next > now) {
    ++account.leftOut;
    return nullptr;
  }
  account.nextFree = next;
  auto leftOut = account.leftOut;
  account.leftOut = 0;
  return leftOut;
}

// Who has written nothing for so long is like a newcomer.
void Damper::forgetIdle(kj::TimePoint full) {
  accounts.eraseAll([full](auto&, Account& account) { return account.nextFree <= full && account.leftOut == 0; });
}

kj::String untold(uint64_t leftOut) {
  return leftOut == 0 ? kj::String() : kj::str("; ", leftOut, " times before that were not told");
}

}  // namespace postern::host
