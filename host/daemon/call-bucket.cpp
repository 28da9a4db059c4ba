#include "host/daemon/call-bucket.h"

namespace postern::host {

CallBucket::CallBucket(kj::Timer& timer, unsigned perSecond, unsigned burst)
    : timer(timer),
      interval(1 * kj::SECONDS / perSecond),
      burst(burst),
      nextFree(timer.now() - interval * int64_t(burst)) {}

kj::Promise<void> CallBucket::take(unsigned cost) {
  auto now = timer.now();
  nextFree = kj::max(nextFree, now - interval * int64_t(burst)) + interval * int64_t(cost);
  if (nextFree <= now) return kj::READY_NOW;
  return timer.atTime(nextFree);
}

}  // namespace postern::host
