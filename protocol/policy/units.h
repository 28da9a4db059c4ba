#pragma once
// Sizes, rates and times as a person writes them: "16 MiB", "200 MiB/s", "100/s".

#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::policy {

// What is wrong with a text and what to write instead.
using UnitError = kj::String;

// A whole number of B, kB, MB, GB, TB (powers of 1,000) or KiB, MiB, GiB, TiB (of 1,024); at least one byte and below
// 2^63.
kj::OneOf<uint64_t, UnitError> parseSize(kj::StringPtr text);
// A size and "/s": bytes a second.
kj::OneOf<uint64_t, UnitError> parseRate(kj::StringPtr text);
// "100/s", "30/min" or "5/h": how many in an hour.
kj::OneOf<uint64_t, UnitError> parseCallRate(kj::StringPtr text);

// Days since 1970-01-01 of a date of the Gregorian calendar.
int64_t daysSinceEpoch(int year, unsigned month, unsigned day);
// "2026-12-31T23:59:59Z".
kj::String formatTime(int64_t secondsSinceEpoch);

}  // namespace postern::policy
