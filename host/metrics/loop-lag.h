#pragma once
// LoopLag: how late the event loop is, as it was with a timer that ran out every LOOP_LAG_EVERY. What holds the loop up
// for longer than that is one late look, of as much.

#include <kj/async.h>
#include <kj/timer.h>

#include "host/metrics/series.h"

namespace postern::host {

constexpr auto LOOP_LAG_EVERY = 250 * kj::MILLISECONDS;

class LoopLag {
 public:
  // Looks until it is destroyed. `timer` is the loop's; both outlive this.
  LoopLag(kj::Timer& timer, Histogram& seconds);
  KJ_DISALLOW_COPY(LoopLag);

 private:
  kj::Timer& timer;
  Histogram& seconds;
  kj::Promise<void> looking;

  kj::Promise<void> look();
};

}  // namespace postern::host
