#include "host/session/report.h"

#include <doctest/doctest.h>
#include <string.h>

namespace postern::host {
namespace {

kj::Array<kj::byte> bytesOf(const Report& report) {
  auto bytes = kj::heapArray<kj::byte>(REPORT_BYTES);
  writeReport(report, bytes);
  return bytes;
}

Report plain() {
  Report report;
  report.sequence = 5;
  report.intervalMilliseconds = 1000;
  report.bootIdHigh = 1;
  report.bootIdLow = 2;
  report.uptimeMilliseconds = 60'000;
  report.memoryTotalKiB = 1 << 20;
  report.memoryAvailableKiB = 1 << 19;
  report.session = 3;
  strcpy(report.agentVersion.data(), "1.2.3");
  return report;
}

TEST_CASE("a report arrives as it was written") {
  auto report = KJ_REQUIRE_NONNULL(parseReport(bytesOf(plain())));
  CHECK(report.sequence == 5);
  CHECK(report.uptimeMilliseconds == 60'000);
  CHECK(report.memoryAvailableKiB == 1 << 19);
  CHECK(report.session == 3);
  CHECK(strcmp(report.agentVersion.data(), "1.2.3") == 0);
}

TEST_CASE("every length but the right one, and every other version, is no report") {
  auto bytes = bytesOf(plain());
  for (size_t size = 0; size < bytes.size(); ++size) CHECK((parseReport(bytes.slice(0, size)) == nullptr));
  auto longer = kj::heapArray<kj::byte>(bytes.size() + 1);
  memcpy(longer.begin(), bytes.begin(), bytes.size());
  CHECK((parseReport(longer) == nullptr));
  for (size_t i = 0; i < sizeof(REPORT_MAGIC); ++i) {
    auto other = kj::heapArray<kj::byte>(bytes);
    other[i] ^= 1;
    CHECK((parseReport(other) == nullptr));
  }
}

// T52
TEST_CASE("whatever the bytes are, what comes out is within its bounds and printable") {
  auto bytes = kj::heapArray<kj::byte>(REPORT_BYTES);
  for (unsigned fill : {0x00, 0x01, 0x7f, 0x80, 0x1b, 0xff}) {
    memset(bytes.begin(), static_cast<int>(fill), bytes.size());
    memcpy(bytes.begin(), &REPORT_MAGIC, sizeof(REPORT_MAGIC));
    auto report = KJ_REQUIRE_NONNULL(parseReport(bytes));
    CHECK(report.intervalMilliseconds >= MIN_HEARTBEAT_MILLISECONDS);
    CHECK(report.intervalMilliseconds <= MAX_HEARTBEAT_MILLISECONDS);
    CHECK(report.uptimeMilliseconds <= uint64_t(1000) * 366 * 86'400 * 1000);
    CHECK(report.agentUptimeMilliseconds <= uint64_t(1000) * 366 * 86'400 * 1000);
    CHECK(report.loopLagMicroseconds <= 3'600'000'000);
    for (auto load : report.load) CHECK(load <= 10'000'000);
    CHECK(report.memoryTotalKiB <= uint64_t(1) << 42);
    CHECK(report.memoryAvailableKiB <= report.memoryTotalKiB);
    CHECK(report.condition <= GuestCondition::RESUMED);
    CHECK(report.agentVersion.back() == '\0');
    for (auto c : report.agentVersion) CHECK((c == '\0' || (c >= ' ' && c <= '~')));
  }
}

TEST_CASE("a version cannot hide text behind its end, nor lack an end") {
  auto report = plain();
  memset(report.agentVersion.data(), 'x', report.agentVersion.size());
  confine(report);
  CHECK(strlen(report.agentVersion.data()) == report.agentVersion.size() - 1);
  memset(report.agentVersion.data(), 'x', report.agentVersion.size());
  report.agentVersion[3] = '\0';
  report.agentVersion[1] = '\x1b';
  confine(report);
  CHECK(strcmp(report.agentVersion.data(), "x?x") == 0);
  for (size_t i = 3; i < report.agentVersion.size(); ++i) CHECK(report.agentVersion[i] == '\0');
}

}  // namespace
}  // namespace postern::host
