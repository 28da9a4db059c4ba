#pragma once
// Quantiles of samples.

#include <kj/debug.h>
#include <kj/vector.h>

#include <algorithm>

namespace postern::bench {

// The value below which a part `q` of the samples lies: 0 the least, 0.5 the median, 1 the greatest. Sorts.
inline double quantile(kj::Vector<double>& samples, double q) {
  KJ_REQUIRE(samples.size() > 0);
  std::sort(samples.begin(), samples.end());
  size_t last = samples.size() - 1;
  double position = q * static_cast<double>(last);
  size_t below = static_cast<size_t>(position);
  size_t above = std::min(below + 1, last);
  return samples[below] + (samples[above] - samples[below]) * (position - static_cast<double>(below));
}

}  // namespace postern::bench
