#pragma once
// Latencies: least, middle, 99th of a hundred and greatest of many durations.

#include <kj/time.h>
#include <kj/vector.h>
#include <stdint.h>

namespace postern::cli {

class Latencies {
 public:
  // The quantiles are of the last of so many, least and greatest of all.
  static constexpr size_t KEPT = 1'000'000;

  void add(kj::Duration duration);

  struct Summary {
    uint64_t count;
    kj::Duration min, p50, p99, max;
  };
  // At least one was added.
  Summary summary() const;

 private:
  kj::Vector<kj::Duration> kept;
  uint64_t count = 0;
  kj::Duration least = 0 * kj::SECONDS;
  kj::Duration greatest = 0 * kj::SECONDS;
};

}  // namespace postern::cli
