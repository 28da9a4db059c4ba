#include "transport/backoff.h"

#include <kj/debug.h>

#include "protocol/limits.h"

namespace postern {

Backoff::Backoff(kj::Duration first, kj::Duration max, Random& random)
    : first(first), max(max), random(random), bound(first) {
  KJ_REQUIRE(first > 0 * kj::NANOSECONDS && first <= max, "a back-off that does not grow");
}

kj::Duration Backoff::next() {
  uint64_t drawn;
  random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&drawn), sizeof(drawn)));
  auto nanoseconds = static_cast<uint64_t>(bound / kj::NANOSECONDS);
  uint64_t half = nanoseconds / 2;
  // A bound is far below 2^63 ns, so the remainder's bias is far below what jitter is for.
  uint64_t delay = nanoseconds - drawn % (half + 1);
  bound = bound > max / 2 ? max : bound * 2;
  return static_cast<int64_t>(delay) * kj::NANOSECONDS;
}

void Backoff::reset() {
  bound = first;
}

Backoff newConnectBackoff(Random& random) {
  return Backoff(limits::CONNECT_RETRY_FIRST, limits::CONNECT_RETRY_MAX, random);
}

Backoff newRefusedBackoff(Random& random) {
  return Backoff(limits::CONNECT_RETRY_FIRST, limits::REFUSED_RETRY_MAX, random);
}

}  // namespace postern
