#include "host/session/report.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>
#include <type_traits>

namespace postern::host {

static_assert(std::is_trivially_copyable_v<Report>);

namespace {

// Of a length of time in milliseconds; what is said beyond it is nonsense.
constexpr uint64_t MAX_UPTIME_MILLISECONDS = uint64_t(1000) * 366 * 86'400 * 1000;
constexpr uint64_t MAX_LOAD = 10'000'000;
constexpr uint64_t MAX_LAG_MICROSECONDS = 3'600'000'000;
constexpr uint64_t MAX_MEMORY_KIB = uint64_t(1) << 42;

}  // namespace

// T52
void confine(Report& report) {
  report.intervalMilliseconds =
      std::clamp(report.intervalMilliseconds, MIN_HEARTBEAT_MILLISECONDS, MAX_HEARTBEAT_MILLISECONDS);
  report.uptimeMilliseconds = std::min(report.uptimeMilliseconds, MAX_UPTIME_MILLISECONDS);
  report.agentUptimeMilliseconds = std::min(report.agentUptimeMilliseconds, MAX_UPTIME_MILLISECONDS);
  report.loopLagMicroseconds = std::min(report.loopLagMicroseconds, MAX_LAG_MICROSECONDS);
  for (auto& load : report.load) load = std::min(load, MAX_LOAD);
  report.memoryTotalKiB = std::min(report.memoryTotalKiB, MAX_MEMORY_KIB);
  report.memoryAvailableKiB = std::min(report.memoryAvailableKiB, report.memoryTotalKiB);
  if (report.condition > GuestCondition::RESUMED) report.condition = GuestCondition::RUNNING;
  bool ended = false;
  for (auto& c : report.agentVersion) {
    if (c == '\0') ended = true;
    if (ended) {
      c = '\0';
    } else if (c < ' ' || c > '~') {
      c = '?';
    }
  }
  report.agentVersion.back() = '\0';
}

void writeReport(const Report& report, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() == REPORT_BYTES);
  memcpy(out.begin(), &REPORT_MAGIC, sizeof(REPORT_MAGIC));
  memcpy(out.begin() + sizeof(REPORT_MAGIC), &report, sizeof(report));
}

kj::Maybe<Report> parseReport(kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() != REPORT_BYTES) return nullptr;
  if (memcmp(untrusted.begin(), &REPORT_MAGIC, sizeof(REPORT_MAGIC)) != 0) return nullptr;
  Report report;
  memcpy(static_cast<void*>(&report), untrusted.begin() + sizeof(REPORT_MAGIC), sizeof(report));
  confine(report);
  return report;
}

}  // namespace postern::host
