#pragma once
// Report: one heartbeat, as a session process passes it on to posternd: a datagram of fixed size on a SOCK_SEQPACKET
// pair, without an answer, since a thousand of them come every second. One that finds the pair full is dropped; the
// next says it all. Both ends are one machine and one build (posternd refuses a session of another version).
//
// The session process parses a hostile guest, so posternd takes a report for a claim: parseReport() is where it becomes
// a checked value. Text is printable from there on.

#include <kj/array.h>
#include <kj/common.h>
#include <stdint.h>

#include <array>

namespace postern::host {

enum class GuestCondition : uint8_t { RUNNING, STOPPING, FROZEN, RESUMED };

struct Report {
  uint64_t sequence = 0;
  uint64_t intervalMilliseconds = 0;  // 200 to 60,000
  uint64_t bootIdHigh = 0;
  uint64_t bootIdLow = 0;
  uint64_t uptimeMilliseconds = 0;  // at most a thousand years
  uint64_t agentUptimeMilliseconds = 0;
  uint64_t loopLagMicroseconds = 0;
  uint64_t load[3] = {};  // times 100
  uint64_t memoryTotalKiB = 0;
  uint64_t memoryAvailableKiB = 0;  // at most the total
  uint64_t session = 0;             // the number of the guest's session, from 1, since the process began
  uint64_t heartbeats = 0;          // since the process began
                                    // since the session process began
  GuestCondition condition = GuestCondition::RUNNING;
  std::array<kj::byte, 32> policyHash{};
  std::array<char, 32> agentVersion{};  // zero-terminated, printable
};

constexpr uint64_t MIN_HEARTBEAT_MILLISECONDS = 200;
constexpr uint64_t MAX_HEARTBEAT_MILLISECONDS = 60'000;
constexpr uint64_t DEFAULT_HEARTBEAT_MILLISECONDS = 1'000;

// A word that names the version of this struct, then the struct as it lies in memory.
constexpr uint64_t REPORT_MAGIC = 0x3154524f50455201;
constexpr size_t REPORT_BYTES = sizeof(REPORT_MAGIC) + sizeof(Report);

// Brings every number into its bounds; what a guest says about itself passes here first.
void confine(Report& report);

void writeReport(const Report& report, kj::ArrayPtr<kj::byte> out);  // REPORT_BYTES
// Null: not a report of this version.
kj::Maybe<Report> parseReport(kj::ArrayPtr<const kj::byte> untrusted);

}  // namespace postern::host
