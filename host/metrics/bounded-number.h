#pragma once
// Numbers that others claim, and sums of them: at most MAX_NUMBER, so that no sum wraps.

#include <kj/common.h>
#include <stdint.h>

namespace postern::host {

// What a line of the audit can hold as a number.
constexpr uint64_t MAX_NUMBER = uint64_t(1) << 62;

inline uint64_t bounded(uint64_t untrusted) {
  return kj::min(untrusted, MAX_NUMBER);
}

// Of two that are bounded.
inline uint64_t boundedSum(uint64_t a, uint64_t b) {
  return bounded(a + b);
}

}  // namespace postern::host
