#pragma once
// Time as the measurements take it, in seconds.

#include <time.h>

namespace postern::bench {

inline double secondsOf(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}
inline double wallSeconds() {
  return secondsOf(CLOCK_MONOTONIC);
}
inline double cpuSeconds() {
  return secondsOf(CLOCK_PROCESS_CPUTIME_ID);
}

}  // namespace postern::bench
