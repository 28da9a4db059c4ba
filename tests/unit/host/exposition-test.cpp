// The page of metrics: its format, and that nothing in a label breaks it; and what is counted for it.

#include "host/metrics/exposition.h"

#include <doctest/doctest.h>
#include <math.h>

#include "host/metrics/process-metrics.h"
#include "host/metrics/series.h"

namespace postern::host {
namespace {

kj::String valueOf(kj::StringPtr label) {
  Exposition page;
  page.family("m", MetricType::GAUGE, "H.");
  page.sample({{"l", label}}, uint64_t(1));
  auto text = page.finish();
  constexpr auto BEFORE = "# HELP m H.\n# TYPE m gauge\nm{l=\""_kj;
  constexpr auto BEHIND = "\"} 1\n"_kj;
  REQUIRE(text.startsWith(BEFORE));
  REQUIRE(text.endsWith(BEHIND));
  return kj::str(text.slice(BEFORE.size(), text.size() - BEHIND.size()));
}

kj::String numberOf(double value) {
  Exposition page;
  page.gauge("m", "H.", value);
  auto text = page.finish();
  return kj::str(text.slice(sizeof("# HELP m H.\n# TYPE m gauge\nm ") - 1, text.size() - 1));
}

// Exposition -------------------------------------------------------------------------------------------------------

TEST_CASE("a page has each family's help and type, and its samples below") {
  Exposition page;
  page.family("postern_operations_total", MetricType::COUNTER, "Operations that are over.");
  page.sample({{"call", "info"}, {"outcome", "done"}}, uint64_t(12));
  page.sample({{"call", "info"}, {"outcome", "failed"}}, uint64_t(0));
  page.counter("postern_lines_total", "Lines.", uint64_t(1) << 63);
  page.gauge("postern_age_seconds", "Age.", 0.25);
  CHECK(page.finish() ==
        "# HELP postern_operations_total Operations that are over.\n"
        "# TYPE postern_operations_total counter\n"
        "postern_operations_total{call=\"info\",outcome=\"done\"} 12\n"
        "postern_operations_total{call=\"info\",outcome=\"failed\"} 0\n"
        "# HELP postern_lines_total Lines.\n"
        "# TYPE postern_lines_total counter\n"
        "postern_lines_total 9223372036854775808\n"
        "# HELP postern_age_seconds Age.\n"
        "# TYPE postern_age_seconds gauge\n"
        "postern_age_seconds 0.25\n");
}

TEST_CASE("numbers are written so that they are read as the same number") {
  CHECK(numberOf(0) == "0");
  CHECK(numberOf(0.0005) == "0.0005");
  CHECK(numberOf(0.00002) == "0.00002");
  CHECK(numberOf(1795903711.84) == "1795903711.84");
  CHECK(numberOf(-1.5) == "-1.5");
  CHECK(numberOf(1e300) == "1e+300");
  CHECK(numberOf(NAN) == "NaN");
  CHECK(numberOf(INFINITY) == "+Inf");
  CHECK(numberOf(-INFINITY) == "-Inf");
}

TEST_CASE("whatever a label holds, it stays within its quotes and its line") {
  CHECK(valueOf("web1") == "web1");
  CHECK(valueOf("") == "");
  CHECK(valueOf("a\"} 1\nforged{x=\"") == "a\\\"} 1\\nforged{x=\\\"");
  CHECK(valueOf("\\") == "\\\\");
  CHECK(valueOf("\\n") == "\\\\n");
  CHECK(valueOf("a\rb\tc\x7f\x1b[2J") == "a?b?c??[2J");
  CHECK(valueOf("caf\xc3\xa9") == "caf\xc3\xa9");
  CHECK(valueOf("caf\xc3") == "caf?");
  CHECK(valueOf("\xff\xfe\"") == "??\\\"");
  CHECK(valueOf("\xc0\x80") == "??");         // overlong
  CHECK(valueOf("\xed\xa0\x80 ") == "??? ");  // a surrogate
  for (int byte = 1; byte < 256; ++byte) {
    char text[] = {'a', char(byte), 'b', 0};
    auto value = valueOf(text);
    for (auto i : kj::indices(value)) {
      bool isEscaped = i > 0 && value[i - 1] == '\\';
      CHECK(value[i] != '\n');
      if (value[i] == '"') CHECK(isEscaped);
    }
  }
}

TEST_CASE("names that the format does not know, a family that begins twice and a sample of none are our bugs") {
  CHECK(isMetricName("postern_vm_state"));
  CHECK(isMetricName("_a9"));
  for (auto bad : {"", "9a", "a-b", "a b", "a{", "\xc3\xa9"}) CHECK_FALSE(isMetricName(bad));
  Exposition page;
  CHECK_THROWS(page.sample({}, uint64_t(1)));
  CHECK_THROWS(page.family("a b", MetricType::GAUGE, "H."));
  CHECK_THROWS(page.family("a", MetricType::GAUGE, "two\nlines"));
  page.family("b", MetricType::GAUGE, "H.");
  CHECK_THROWS(page.family("b", MetricType::GAUGE, "H."));
  CHECK_THROWS(page.sample({{"a-b", "1"}}, uint64_t(1)));
}

// Histogram --------------------------------------------------------------------------------------------------------

constexpr double BOUNDS[] = {0.1, 1, 10};

kj::String pageOf(const Histogram& histogram) {
  Exposition page;
  page.family("m", MetricType::HISTOGRAM, "H.");
  histogram.write(page);
  auto text = page.finish();
  return kj::str(text.slice(sizeof("# HELP m H.\n# TYPE m histogram\n") - 1));
}

TEST_CASE("a histogram counts what is at most a bound under it, and under all that are larger") {
  Histogram histogram(BOUNDS);
  for (double value : {0.0, 0.1, 0.5, 10.0, 11.0}) histogram.observe(value);
  CHECK(histogram.count() == 5);
  CHECK(pageOf(histogram) ==
        "m_bucket{le=\"0.1\"} 2\nm_bucket{le=\"1\"} 3\nm_bucket{le=\"10\"} 4\nm_bucket{le=\"+Inf\"} 5\n"
        "m_sum 21.6\nm_count 5\n");
}

TEST_CASE("what others have observed with the same bounds is added") {
  Histogram histogram(BOUNDS);
  const uint64_t more[] = {1, 0, 2, 3};
  histogram.observe(0.5);
  histogram.add(more, 100);
  CHECK(pageOf(histogram) ==
        "m_bucket{le=\"0.1\"} 1\nm_bucket{le=\"1\"} 2\nm_bucket{le=\"10\"} 4\nm_bucket{le=\"+Inf\"} 7\n"
        "m_sum 100.5\nm_count 7\n");
  const uint64_t few[] = {1, 2};
  CHECK_THROWS(histogram.add(few, 1));
}

// Counters ---------------------------------------------------------------------------------------------------------

kj::String pageOf(const Counters& counters, Labels more = nullptr) {
  Exposition page;
  page.family("m", MetricType::COUNTER, "H.");
  counters.write(page, more);
  auto text = page.finish();
  return kj::str(text.slice(sizeof("# HELP m H.\n# TYPE m counter\n") - 1));
}

TEST_CASE("counters count by their labels, behind those that are common to them") {
  Counters counters(10, {"call", "outcome"});
  CHECK(pageOf(counters) == "");
  counters.add({"info", "done"});
  counters.add({"info", "done"}, 2);
  counters.add({"info", "failed"}, 0);
  CHECK(pageOf(counters) == "m{call=\"info\",outcome=\"done\"} 3\nm{call=\"info\",outcome=\"failed\"} 0\n");
  const Label vm[] = {{"vm", "web1"}};
  CHECK(pageOf(counters, vm) ==
        "m{vm=\"web1\",call=\"info\",outcome=\"done\"} 3\nm{vm=\"web1\",call=\"info\",outcome=\"failed\"} 0\n");
  CHECK_THROWS(counters.add({"info"}));
}

TEST_CASE("values that look alike when they stand together are different series") {
  Counters counters(10, {"a", "b"});
  counters.add({"x", "yz"});
  counters.add({"xy", "z"});
  counters.add({"1:x", ""});
  counters.add({"", "1:x"});
  CHECK(counters.size() == 4);
}

TEST_CASE("ever new labels are counted as other, and those that are known as before") {
  Counters counters(100, {"rule"});
  for (unsigned i = 0; i < 10'000; ++i) counters.add({kj::str("rule", i)});
  counters.add({"rule7"});
  CHECK(counters.size() == 101);
  CHECK(counters.total() == 10'001);
  auto page = pageOf(counters);
  CHECK(strstr(page.cStr(), "m{rule=\"other\"} 9900\n") != nullptr);
  CHECK(strstr(page.cStr(), "m{rule=\"rule7\"} 2\n") != nullptr);
}

// The process ------------------------------------------------------------------------------------------------------

double sampleOf(kj::StringPtr page, kj::StringPtr name) {
  auto line = kj::str('\n', name, ' ');
  auto* at = strstr(page.cStr(), line.cStr());
  REQUIRE(at != nullptr);
  return strtod(at + line.size(), nullptr);
}

TEST_CASE("a process knows its memory, its descriptors, its processor time and when it began") {
  Exposition page;
  writeProcessMetrics(page);
  auto text = page.finish();
  auto now = double((kj::systemPreciseCalendarClock().now() - kj::UNIX_EPOCH) / kj::SECONDS);
  CHECK(sampleOf(text, "process_start_time_seconds") <= now + 2);
  CHECK(sampleOf(text, "process_start_time_seconds") > now - 3600);
  CHECK(sampleOf(text, "process_resident_memory_bytes") > 1 << 20);
  CHECK(sampleOf(text, "process_virtual_memory_bytes") > sampleOf(text, "process_resident_memory_bytes"));
  CHECK(sampleOf(text, "process_open_fds") >= 3);
  CHECK(sampleOf(text, "process_open_fds") < sampleOf(text, "process_max_fds"));
  CHECK(sampleOf(text, "process_cpu_seconds_total") >= 0);
}

}  // namespace
}  // namespace postern::host
