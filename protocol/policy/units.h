#pragma once
// Sizes, rates and times as a person writes them: "16 MiB", "200 MiB/s", "100/s".

#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::policy {

// What is wrong with a text and what to write instead.
using UnitError = kj::String;

// Whether a text may say 0, where that means something: that nothing passes.
enum class Zero : uint8_t { REFUSED, ALLOWED };

// A whole number of B, kB, MB, GB, TB (powers of 1,000) or KiB, MiB, GiB, TiB (of 1,024); below 2^63.
kj::OneOf<uint64_t, UnitError> parseSize(kj::StringPtr text, Zero zero = Zero::REFUSED);
// A size and "/s": bytes a second.
kj::OneOf<uint64_t, UnitError> parseRate(kj::StringPtr text, Zero zero = Zero::REFUSED);
// "100/s", "30/min", "5/h" or "0/h": how many in an hour.
kj::OneOf<uint64_t, UnitError> parseCallRate(kj::StringPtr text);

// "16 MiB", "3 kB", "1025 B": in the largest unit of which it is a whole number.
kj::String formatSize(uint64_t bytes);

// Days since 1970-01-01 of a date of the Gregorian calendar.
int64_t daysSinceEpoch(int year, unsigned month, unsigned day);
// "2026-12-31T23:59:59Z".
kj::String formatTime(int64_t secondsSinceEpoch);

}  // namespace postern::policy
