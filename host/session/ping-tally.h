#pragma once
// PingTally: how long a guest has taken to answer pings, by buckets, as the session measured it: from sending the call
// to having its answer. What a session process tells posternd of them, once in PINGS_TOLD_EVERY for as long as there
// are any. The bounds are of the metric postern_ping_seconds; both ends are one build.

#include <kj/array.h>
#include <kj/time.h>
#include <stdint.h>

#include <array>

#include "host/session/session-control.capnp.h"

namespace postern::host {

constexpr auto PINGS_TOLD_EVERY = 1 * kj::SECONDS;

// Seconds. An answer takes some 50 us over a socket and 10 ms over an emulated serial port.
constexpr std::array<double, 14> PING_BOUNDS = {0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002,
                                                0.005,   0.01,    0.02,   0.05,   0.1,    0.5,   2.5};

class PingTally {
 public:
  void answered(kj::Duration took);
  // Refused, not connected, or no answer in time.
  void failed() { ++failures; }
  bool isEmpty() const { return count == 0 && failures == 0; }

  void write(schema::SessionObserver::PingsParams::Builder to) const;

 private:
  std::array<uint64_t, PING_BOUNDS.size() + 1> counts{};
  uint64_t count = 0;
  uint64_t failures = 0;
  uint64_t nanoseconds = 0;
};

// A tally that was told, checked: numbers are bounded. Null: not one of this build.
struct PingReport {
  std::array<uint64_t, PING_BOUNDS.size() + 1> counts{};
  double seconds = 0;  // all of them together
  uint64_t failures = 0;
};
kj::Maybe<PingReport> parsePingReport(schema::SessionObserver::PingsParams::Reader untrusted);

}  // namespace postern::host
