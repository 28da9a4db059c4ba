#pragma once
// TokenBucket: so many a second in the long run, and so many at once after a pause. What is taken is taken: the answer
// is how long the taker waits before he uses it, so takers are served in the order in which they come, and a piece may
// be larger than the burst. It reads no clock.

#include <kj/time.h>
#include <stdint.h>

namespace postern::host {

class TokenBucket {
 public:
  // Full. `rate` 0: no bound.
  explicit TokenBucket(uint64_t rate = 0, uint64_t burst = 0) { set(rate, burst); }

  // From now on; what has been taken stays taken.
  void set(uint64_t perSecond, uint64_t most) {
    rate = perSecond;
    burst = most;
  }
  kj::Duration take(uint64_t amount, kj::TimePoint now) {
    if (rate == 0) return 0 * kj::SECONDS;
    full = (full > now ? full : now) + timeFor(amount);
    return waitAt(now);
  }
  // Takes it only if it can be used at once.
  bool tryTake(uint64_t amount, kj::TimePoint now) {
    if (rate == 0) return true;
    auto after = (full > now ? full : now) + timeFor(amount);
    if (after - timeFor(burst) > now) return false;
    full = after;
    return true;
  }
  bool isFull(kj::TimePoint now) const { return full <= now; }

 private:
  uint64_t rate;
  uint64_t burst;
  kj::TimePoint full = kj::origin<kj::TimePoint>();  // when all that was taken will have come back

  // At most a hundred years, so that sums of two stay within a Duration.
  kj::Duration timeFor(uint64_t amount) const {
    constexpr double MOST = 3e18;
    double nanoseconds = static_cast<double>(amount) / static_cast<double>(rate) * 1e9;
    return static_cast<int64_t>(nanoseconds < MOST ? nanoseconds : MOST) * kj::NANOSECONDS;
  }
  kj::Duration waitAt(kj::TimePoint now) const {
    auto wait = full - timeFor(burst) - now;
    return wait > 0 * kj::SECONDS ? wait : 0 * kj::SECONDS;
  }
};

}  // namespace postern::host
