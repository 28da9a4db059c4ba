#pragma once
// TokenBucket: so many a second in the long run, and so many at once after a pause. What is taken is taken: who takes
// gets a turn, and uses what he took when the turn has come, so takers are served in the order in which they come, and
// a piece may be larger than the burst. It reads no clock.
//
// Other numbers count at once, for turns that are still to come as well.

#include <kj/time.h>
#include <stdint.h>

#include <cmath>

namespace postern::host {

class TokenBucket {
 public:
  // Has come when so much has come in, on the bucket's own count. Good until it has.
  struct Turn {
    uint64_t at = 0;
  };

  // Full. `rate` 0: no bound.
  explicit TokenBucket(uint64_t rate = 0, uint64_t burst = 0) : rate(rate), burst(bounded(burst)), left(this->burst) {}

  // From now on; what has been taken stays taken.
  void set(uint64_t perSecond, uint64_t most, kj::TimePoint now) {
    comeIn(now);
    auto more = bounded(most) - burst;
    burst += more;
    left = rate == 0 ? burst : plus(left, more);
    if (more > 0) count += static_cast<uint64_t>(more);
    rate = perSecond;
  }

  Turn take(uint64_t amount, kj::TimePoint now) {
    comeIn(now);
    if (rate == 0) return Turn{count};
    left = plus(left, -bounded(amount));
    return Turn{left < 0 ? count + static_cast<uint64_t>(-left) : count};
  }
  // Until the turn comes, if the numbers stay; 0: it has.
  kj::Duration waitFor(Turn turn, kj::TimePoint now) {
    comeIn(now);
    auto missing = static_cast<int64_t>(turn.at - count);  // the count may have gone round
    if (rate == 0 || missing <= 0) return 0 * kj::SECONDS;
    double nanoseconds = std::ceil((static_cast<double>(missing) - fraction) * 1e9 / static_cast<double>(rate));
    return static_cast<int64_t>(nanoseconds < MOST ? nanoseconds : MOST) * kj::NANOSECONDS;
  }
  // Whether it could be used at once.
  bool canTake(uint64_t amount, kj::TimePoint now) {
    comeIn(now);
    return rate == 0 || left >= bounded(amount);
  }
  // Takes it only then.
  bool tryTake(uint64_t amount, kj::TimePoint now) {
    if (!canTake(amount, now)) return false;
    (void)take(amount, now);
    return true;
  }
  bool isFull(kj::TimePoint now) {
    comeIn(now);
    return rate == 0 || left >= burst;
  }

 private:
  static constexpr double MOST = 3e18;  // a hundred years, so that sums of two stay within a Duration
  static constexpr int64_t MUCH = int64_t(1) << 61;

  uint64_t rate;
  int64_t burst;
  int64_t left;         // at most `burst`; below 0 while turns are to come
  uint64_t count = 0;   // what has come in, ever
  double fraction = 0;  // of one, that has come in beside it
  kj::TimePoint countedAt = kj::origin<kj::TimePoint>();

  static int64_t bounded(uint64_t amount) { return static_cast<int64_t>(amount < uint64_t(MUCH) ? amount : MUCH); }
  int64_t plus(int64_t a, int64_t b) const {
    auto sum = a + b;  // each is within twice MUCH
    return sum < -MUCH ? -MUCH : sum < burst ? sum : burst;
  }

  void comeIn(kj::TimePoint now) {
    if (now <= countedAt) return;
    double more = static_cast<double>(rate) * static_cast<double>((now - countedAt) / kj::NANOSECONDS) / 1e9 + fraction;
    countedAt = now;
    if (more > static_cast<double>(MUCH)) more = static_cast<double>(MUCH);
    auto whole = static_cast<int64_t>(more);
    fraction = more - static_cast<double>(whole);
    count += static_cast<uint64_t>(whole);
    left = plus(left, whole);
  }
};

}  // namespace postern::host
