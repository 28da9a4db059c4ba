#include "guest-agent/agent/vitals.h"

#include <doctest/doctest.h>

#include <string>

using namespace postern;
using namespace postern::guest;

namespace {

class HandClocks final : public Clocks {
 public:
  kj::Duration mono = 100 * kj::SECONDS;
  kj::Duration apart = 0 * kj::SECONDS;
  kj::Duration monotonic() const override { return mono; }
  kj::Duration boot() const override { return mono + apart; }
};

kj::ArrayPtr<const char> text(const std::string& string) {
  return kj::arrayPtr(string.data(), string.size());
}

}  // namespace

TEST_CASE("a guest that was suspended between two heartbeats is seen once") {
  HandClocks clocks;
  GapWatch gaps(clocks);
  CHECK(!gaps.sawGap(1 * kj::SECONDS));
  clocks.mono += 1 * kj::SECONDS;
  clocks.apart += 3600 * kj::SECONDS;
  CHECK(gaps.sawGap(1 * kj::SECONDS));
  clocks.mono += 1 * kj::SECONDS;
  CHECK(!gaps.sawGap(1 * kj::SECONDS));
}

TEST_CASE("a guest that was paused is seen by the distance of its heartbeats, an absent link is not") {
  HandClocks clocks;
  GapWatch gaps(clocks);
  gaps.sawGap(1 * kj::SECONDS);
  clocks.mono += 2900 * kj::MILLISECONDS;
  CHECK(!gaps.sawGap(1 * kj::SECONDS));
  clocks.mono += 3100 * kj::MILLISECONDS;
  CHECK(gaps.sawGap(1 * kj::SECONDS));
  gaps.skip();
  clocks.mono += 3600 * kj::SECONDS;
  CHECK(!gaps.sawGap(1 * kj::SECONDS));
}

TEST_CASE("load averages are read, and anything else is zero") {
  auto load = parseLoadavg(text("0.52 1.08 12.59 1/467 12345\n"));
  CHECK(load.one == 52);
  CHECK(load.five == 108);
  CHECK(load.fifteen == 1259);
  for (std::string bad :
       {"", "x", "0.5", "1.00 2.00", "1,00 2,00 3,00", "-1.00 0.00 0.00", "1.00 2.00 99999999999.00"}) {
    auto none = parseLoadavg(text(bad));
    CHECK(none.fifteen == 0);
  }
}

TEST_CASE("memory is found by its name, in whole lines alone") {
  std::string meminfo = "MemTotal:       16384256 kB\nMemFree:         1234 kB\nMemAvailable:    8000000 kB\n";
  CHECK(meminfoValue(text(meminfo), "MemTotal") == 16384256);
  CHECK(meminfoValue(text(meminfo), "MemAvailable") == 8000000);
  CHECK(meminfoValue(text(meminfo), "Mem") == 0);
  for (size_t size = 0; size < 27; ++size) CHECK(meminfoValue(text(meminfo.substr(0, size)), "MemTotal") == 0);
}

TEST_CASE("a boot id is its 128 bits") {
  auto id = parseBootId(text("01234567-89ab-cdef-fedc-ba9876543210\n"));
  CHECK(id.high == 0x0123456789abcdef);
  CHECK(id.low == 0xfedcba9876543210);
  CHECK((parseBootId(text("none")) == Uint128()));
}
