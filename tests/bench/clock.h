#pragma once
// Time as the measurements take it, in seconds.

#include <sys/resource.h>
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
// User and system time of the children that have ended.
inline double cpuOfChildren() {
  rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace postern::bench
