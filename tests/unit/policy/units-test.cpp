#include "protocol/policy/units.h"

#include <doctest/doctest.h>

#include <string>

namespace postern::policy {
namespace {

template <typename Parsed>
uint64_t value(Parsed&& parsed) {
  KJ_IF_MAYBE (wrong, parsed.template tryGet<kj::String>()) {
    FAIL(wrong->cStr());
    return 0;
  }
  return parsed.template get<uint64_t>();
}

TEST_CASE("sizes and rates have units of a thousand and of 1,024") {
  CHECK(value(parseSize("1 B")) == 1);
  CHECK(value(parseSize("16 MiB")) == 16 << 20);
  CHECK(value(parseSize("16MiB")) == 16 << 20);
  CHECK(value(parseSize("3 kB")) == 3000);
  CHECK(value(parseSize("3 KiB")) == 3072);
  CHECK(value(parseSize("2 TB")) == 2000000000000);
  CHECK(value(parseSize("1 TiB")) == uint64_t(1) << 40);
  CHECK(value(parseSize("8388607 TiB")) == uint64_t(8388607) << 40);
  CHECK(value(parseRate("200 MiB/s")) == uint64_t(200) << 20);
  CHECK(value(parseRate("1 GB/s")) == 1000000000);
  CHECK(value(parseCallRate("100/s")) == 360000);
  CHECK(value(parseCallRate("30/min")) == 1800);
  CHECK(value(parseCallRate("5/h")) == 5);
  CHECK(value(parseCallRate("0/h")) == 0);
  CHECK(value(parseSize("0 B", Zero::ALLOWED)) == 0);
  CHECK(value(parseRate("0 B/s", Zero::ALLOWED)) == 0);
}

TEST_CASE("everything else is refused") {
  for (auto text : {"", " ", "16", "MiB", "16 mib", "-1 MiB", "+1 MiB", "1e3 B", "0 B", "1.5 MiB", "16 MiB/s",
                    "16 MiB ", " 16 MiB", "8388608 TiB", "9999999999999999999 B", "16 MiB 2"}) {
    INFO(text);
    CHECK(parseSize(text).is<kj::String>());
  }
  for (auto text : {"", "16 MiB", "16 MiB/h", "16/s", "/s", "16 MiB/s/s", "0 B/s"})
    CHECK(parseRate(text).is<kj::String>());
  for (auto text : {"", "100", "/s", "100 /s", "1/d", "99999999999/s"}) CHECK(parseCallRate(text).is<kj::String>());
}

TEST_CASE("days and times are those of the calendar") {
  CHECK(daysSinceEpoch(1970, 1, 1) == 0);
  CHECK(daysSinceEpoch(2000, 3, 1) == 11017);
  CHECK(daysSinceEpoch(2024, 2, 29) == 19782);
  CHECK(daysSinceEpoch(1969, 12, 31) == -1);
  CHECK((formatTime(0) == "1970-01-01T00:00:00Z"));
  CHECK((formatTime(-1) == "1969-12-31T23:59:59Z"));
  CHECK((formatTime(1800000000) == "2027-01-15T08:00:00Z"));
  CHECK((formatTime(951825600) == "2000-02-29T12:00:00Z"));
  // Every day of four centuries comes back.
  int64_t day = daysSinceEpoch(1900, 1, 1);
  for (int year = 1900; year < 2300; ++year) {
    for (unsigned month = 1; month <= 12; ++month) {
      bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
      unsigned days = month == 2 ? (leap ? 29 : 28) : month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
      for (unsigned d = 1; d <= days; ++d, ++day) {
        if (daysSinceEpoch(year, month, d) != day) FAIL(year, " ", month, " ", d);
      }
      CHECK((formatTime((day - 1) * 86400).slice(8, 10) == kj::str(days)));
    }
  }
}

}  // namespace
}  // namespace postern::policy
