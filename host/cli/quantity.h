#pragma once
// Durations and sizes as a person writes and reads them.

#include <kj/string.h>
#include <kj/time.h>
#include <stdint.h>

namespace postern::cli {

// "2", "1.5", "500ms", "30s", "15m" or "15min", "2h", "7d"; a bare number is seconds. Null if it is none of these, or
// over a year.
kj::Maybe<kj::Duration> parseDuration(kj::StringPtr text);

// The largest two units: "50 ms", "0.4 s", "42 s", "3 min 20 s", "2 h 5 min", "12 d 3 h".
kj::String describeDuration(kj::Duration duration);
// "0.081 ms", "12.3 ms", "2.10 s": as ping writes it.
kj::String describeLatency(kj::Duration duration);
// "17.3 GiB", "512 B".
kj::String describeBytes(uint64_t bytes);
// "17.3 GiB/s". Any number: one that no uint64_t holds, or that is none, is shown as the nearest that is.
kj::String describeRate(double bytesPerSecond);

double milliseconds(kj::Duration duration);

}  // namespace postern::cli
