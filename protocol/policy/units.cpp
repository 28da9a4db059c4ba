#include "protocol/policy/units.h"

#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

struct Unit {
  kj::StringPtr name;
  uint64_t bytes;
};
constexpr uint64_t Ki = 1024;
constexpr Unit UNITS[] = {
    {"B"_kj, 1},
    {"kB"_kj, 1000},
    {"MB"_kj, 1000ull * 1000},
    {"GB"_kj, 1000ull * 1000 * 1000},
    {"KiB"_kj, Ki},
    {"MiB"_kj, Ki* Ki},
    {"GiB"_kj, Ki* Ki* Ki},
    {"TB"_kj, 1000ull * 1000 * 1000 * 1000},
    {"TiB"_kj, Ki* Ki* Ki* Ki},
};

// Reads decimal digits off the front of `text`; null if there are none or too many.
kj::Maybe<uint64_t> takeNumber(kj::StringPtr& text) {
  uint64_t value = 0;
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
    value = value * 10 + uint64_t(text[digits] - '0');
    if (++digits > 18) return nullptr;
  }
  if (digits == 0) return nullptr;
  text = text.slice(digits);
  return value;
}

kj::StringPtr withoutSpaces(kj::StringPtr text) {
  while (text.startsWith(" ")) text = text.slice(1);
  return text;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
}

bool equalsWithoutCase(kj::StringPtr a, kj::StringPtr b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

// `suffix` is what follows the unit, "" or "/s".
kj::OneOf<uint64_t, UnitError> parseBytes(kj::StringPtr text, kj::StringPtr suffix, kj::StringPtr example, Zero zero) {
  auto wrong = [&](kj::StringPtr hint) -> UnitError {
    return kj::str(quote(text), hint, "; write a whole number and a unit, such as \"", example, "\"");
  };
  kj::StringPtr rest = text;
  uint64_t number;
  KJ_IF_MAYBE (value, takeNumber(rest)) {
    number = *value;
  } else {
    return wrong(" is no number");
  }
  if (rest.startsWith(".")) return wrong(" is a fraction");
  rest = withoutSpaces(rest);
  if (number == 0 && zero == Zero::REFUSED)
    return kj::str(quote(text), " is nothing at all; leave it out, or write more");
  if (!rest.endsWith(suffix)) return wrong(suffix.size() > 0 ? " lacks '/s' at its end"_kj : ""_kj);
  auto unitText = kj::heapString(rest.slice(0, rest.size() - suffix.size()));
  if (unitText.size() == 0) return wrong(" lacks a unit");
  for (auto& unit : UNITS) {
    if (unitText != unit.name) continue;
    if (number > uint64_t(INT64_MAX) / unit.bytes) return wrong(" is too large");
    return number * unit.bytes;
  }
  for (auto& unit : UNITS) {
    if (equalsWithoutCase(unitText, unit.name)) {
      return kj::str(quote(text), ": unit ", quote(unitText), " is unknown; did you mean '", unit.name, suffix, "'?");
    }
  }
  return wrong(kj::str(": unit ", quote(unitText), " is unknown (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"));
}

}  // namespace

kj::OneOf<uint64_t, UnitError> parseSize(kj::StringPtr text, Zero zero) {
  return parseBytes(text, "", "16 MiB", zero);
}

kj::OneOf<uint64_t, UnitError> parseRate(kj::StringPtr text, Zero zero) {
  return parseBytes(text, "/s", "200 MiB/s", zero);
}

kj::OneOf<uint64_t, UnitError> parseCallRate(kj::StringPtr text) {
  kj::StringPtr rest = text;
  KJ_IF_MAYBE (number, takeNumber(rest)) {
    uint64_t perHour = rest == "/s" ? 3600 : rest == "/min" ? 60 : rest == "/h" ? 1 : 0;
    if (perHour > 0 && *number <= 1000000000) return *number * perHour;
  }
  return kj::str(quote(text), " is no rate of calls; write \"100/s\", \"30/min\" or \"5/h\"");
}

kj::String formatSize(uint64_t bytes) {
  const Unit* best = &UNITS[0];
  for (auto& unit : UNITS) {
    if (bytes > 0 && bytes % unit.bytes == 0 && unit.bytes > best->bytes) best = &unit;
  }
  return kj::str(bytes / best->bytes, ' ', best->name);
}

// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
int64_t daysSinceEpoch(int year, unsigned month, unsigned day) {
  int64_t y = int64_t(year) - (month <= 2);
  int64_t era = (y >= 0 ? y : y - 399) / 400;
  int64_t yearOfEra = y - era * 400;
  int64_t dayOfYear = (153 * (int64_t(month) + (month > 2 ? -3 : 9)) + 2) / 5 + int64_t(day) - 1;
  int64_t dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear;
  return era * 146097 + dayOfEra - 719468;
}

kj::String formatTime(int64_t seconds) {
  int64_t days = seconds / 86400, rest = seconds % 86400;
  if (rest < 0) {
    rest += 86400;
    --days;
  }
  int64_t z = days + 719468;
  int64_t era = (z >= 0 ? z : z - 146096) / 146097;
  int64_t dayOfEra = z - era * 146097;
  int64_t yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365;
  int64_t dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
  int64_t monthFromMarch = (5 * dayOfYear + 2) / 153;
  int64_t day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1;
  int64_t month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9;
  int64_t year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  auto two = [](int64_t n) { return kj::str(n < 10 ? "0" : "", n); };
  auto fill = year < 10 ? "000"_kj : year < 100 ? "00"_kj : year < 1000 ? "0"_kj : ""_kj;
  return kj::str(fill, year, '-', two(month), '-', two(day), 'T', two(rest / 3600), ':', two(rest / 60 % 60), ':',
                 two(rest % 60), 'Z');
}

}  // namespace postern::policy
