#include "host/cli/quantity.h"

#include <stdio.h>
#include <stdlib.h>

namespace postern::cli {

namespace {

struct Unit {
  kj::StringPtr name;
  kj::Duration length;
};
constexpr kj::Duration LONGEST = 366 * kj::DAYS;

kj::Maybe<kj::Duration> unitOf(kj::StringPtr name) {
  const Unit units[] = {{""_kj, kj::SECONDS},  {"ms"_kj, kj::MILLISECONDS}, {"s"_kj, kj::SECONDS},
                        {"m"_kj, kj::MINUTES}, {"min"_kj, kj::MINUTES},     {"h"_kj, kj::HOURS},
                        {"d"_kj, kj::DAYS}};
  for (auto& unit : units) {
    if (unit.name == name) return unit.length;
  }
  return nullptr;
}

template <typename... Arguments>
kj::String formatted(const char* format, Arguments... arguments) {
  char out[64];
  snprintf(out, sizeof(out), format, arguments...);
  return kj::str(static_cast<const char*>(out));
}

kj::String twoUnits(uint64_t large, kj::StringPtr largeName, uint64_t small, kj::StringPtr smallName) {
  if (small == 0) return kj::str(large, ' ', largeName);
  return kj::str(large, ' ', largeName, ' ', small, ' ', smallName);
}

}  // namespace

kj::Maybe<kj::Duration> parseDuration(kj::StringPtr text) {
  size_t digits = 0;
  bool point = false;
  for (char c : text) {
    if (c == '.' && !point && digits > 0) {
      point = true;
    } else if (c < '0' || c > '9') {
      break;
    }
    ++digits;
  }
  if (digits == 0 || digits > 18 || text[digits - 1] == '.') return nullptr;
  double number = strtod(kj::heapString(text.slice(0, digits)).cStr(), nullptr);
  return unitOf(text.slice(digits))
      .map([number](kj::Duration unit) -> kj::Maybe<kj::Duration> {
        double nanoseconds = number * static_cast<double>(unit / kj::NANOSECONDS);
        if (nanoseconds > static_cast<double>(LONGEST / kj::NANOSECONDS)) return nullptr;
        return static_cast<int64_t>(nanoseconds) * kj::NANOSECONDS;
      })
      .orDefault(nullptr);
}

kj::String describeDuration(kj::Duration duration) {
  if (duration < 0 * kj::SECONDS) duration = 0 * kj::SECONDS;
  if (duration < 100 * kj::MILLISECONDS) return kj::str(duration / kj::MILLISECONDS, " ms");
  auto seconds = static_cast<uint64_t>(duration / kj::SECONDS);
  auto tenths = duration / (100 * kj::MILLISECONDS);
  if (seconds < 10) return formatted("%.1f s", static_cast<double>(tenths) / 10);
  if (seconds < 60) return kj::str(seconds, " s");
  if (seconds < 3600) return twoUnits(seconds / 60, "min"_kj, seconds % 60, "s"_kj);
  if (seconds < 86400) return twoUnits(seconds / 3600, "h"_kj, seconds / 60 % 60, "min"_kj);
  return twoUnits(seconds / 86400, "d"_kj, seconds / 3600 % 24, "h"_kj);
}

kj::String describeLatency(kj::Duration duration) {
  double ms = milliseconds(duration);
  if (ms < 10) return formatted("%.3f ms", ms);
  if (ms < 1000) return formatted("%.1f ms", ms);
  return formatted("%.2f s", ms / 1000);
}

kj::String describeBytes(uint64_t bytes) {
  static constexpr const char* NAMES[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return kj::str(bytes, " B");
  auto amount = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; amount >= 1023.95 && unit < 5; ++unit) amount /= 1024;
  return formatted("%.1f %s", amount, NAMES[unit]);
}

kj::String describeRate(double bytesPerSecond) {
  constexpr double MOST = 1.8e19;
  // Not std::clamp(), which hands on what is no number.
  double shown = bytesPerSecond > 0 ? (bytesPerSecond < MOST ? bytesPerSecond : MOST) : 0;
  return kj::str(describeBytes(static_cast<uint64_t>(shown)), "/s");
}

double milliseconds(kj::Duration duration) {
  return static_cast<double>(duration / kj::NANOSECONDS) / 1e6;
}

}  // namespace postern::cli
