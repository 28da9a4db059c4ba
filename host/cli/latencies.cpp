#include "host/cli/latencies.h"

#include <kj/debug.h>

#include <algorithm>

namespace postern::cli {

void Latencies::add(kj::Duration duration) {
  if (count == 0 || duration < least) least = duration;
  if (count == 0 || duration > greatest) greatest = duration;
  if (kept.size() < KEPT) {
    kept.add(duration);
  } else {
    kept[count % KEPT] = duration;
  }
  ++count;
}

Latencies::Summary Latencies::summary() const {
  KJ_REQUIRE(count > 0);
  auto sorted = kj::heapArray<kj::Duration>(kept.asPtr());
  std::sort(sorted.begin(), sorted.end());
  // The smallest that so many of a hundred are not above.
  auto quantile = [&](size_t ofHundred) { return sorted[(sorted.size() * ofHundred + 99) / 100 - 1]; };
  return {count, least, quantile(50), quantile(99), greatest};
}

}  // namespace postern::cli
