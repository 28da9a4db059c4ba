#include <string.h>

#include <limits>

#include "host/board/board-vm.h"

namespace postern::host {

namespace {

// At most the field's size; NUL ends it, and nothing unprintable gets in or out.
template <size_t size>
void putText(char (&field)[size], kj::StringPtr text) {
  size_t n = kj::min(size, text.size());
  for (size_t i = 0; i < n; ++i) field[i] = text[i] < ' ' || text[i] > '~' ? '?' : text[i];
}

template <size_t size>
kj::String getText(const char (&untrustedField)[size]) {
  auto text = kj::heapString(untrustedField, strnlen(untrustedField, size));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  return text;
}

template <typename Int>
Int clamped(int64_t value) {
  if (value < 0) return 0;
  if (uint64_t(value) > std::numeric_limits<Int>::max()) return std::numeric_limits<Int>::max();
  return Int(value);
}

void encodeReport(const GuestReport& report, board::Slot& slot) {
  slot.lastHeartbeat = kj::max(toMonotonicNs(report.at), uint64_t(1));  // 0 means none
  slot.heartbeatSequence = report.sequence;
  slot.intervalMs = clamped<uint32_t>(report.interval / kj::MILLISECONDS);
  slot.loopLagUs = clamped<uint32_t>(report.loopLag / kj::MICROSECONDS);
  slot.guestState = uint8_t(report.state);
  memcpy(slot.guestBoot, report.bootId.data(), sizeof(slot.guestBoot));
  putText(slot.agentVersion, report.agentVersion);
  slot.agentUptimeMs = clamped<uint64_t>(report.uptime / kj::MILLISECONDS);
  slot.guestUptimeMs = clamped<uint64_t>(report.guestUptime / kj::MILLISECONDS);
  slot.load1 = report.loadHundredths[0];
  slot.load5 = report.loadHundredths[1];
  slot.load15 = report.loadHundredths[2];
  slot.memoryTotal = report.memoryTotal;
  slot.memoryAvailable = report.memoryAvailable;
  memcpy(slot.policyHash, report.policyHash.data(), sizeof(slot.policyHash));
}

GuestReport decodeReport(const board::Slot& untrusted) {
  GuestReport report;
  report.at = fromMonotonicNs(untrusted.lastHeartbeat);
  report.sequence = untrusted.heartbeatSequence;
  report.interval = int64_t(untrusted.intervalMs) * kj::MILLISECONDS;
  report.loopLag = int64_t(untrusted.loopLagUs) * kj::MICROSECONDS;
  report.state = GuestState(untrusted.guestState);
  memcpy(report.bootId.data(), untrusted.guestBoot, sizeof(untrusted.guestBoot));
  report.agentVersion = getText(untrusted.agentVersion);
  constexpr uint64_t longest = std::numeric_limits<int64_t>::max() / 1'000'000;
  report.uptime = int64_t(kj::min(untrusted.agentUptimeMs, longest)) * kj::MILLISECONDS;
  report.guestUptime = int64_t(kj::min(untrusted.guestUptimeMs, longest)) * kj::MILLISECONDS;
  report.loadHundredths = {untrusted.load1, untrusted.load5, untrusted.load15};
  report.memoryTotal = untrusted.memoryTotal;
  report.memoryAvailable = untrusted.memoryAvailable;
  memcpy(report.policyHash.data(), untrusted.policyHash, sizeof(untrusted.policyHash));
  return report;
}

}  // namespace

board::Slot encodeSlot(const BoardVm& vm) {
  board::Slot slot{};
  slot.used = 1;
  slot.colour = uint8_t(vm.verdict.colour);
  slot.transport = vm.transport;
  slot.linkUp = vm.linkUp ? 1 : 0;
  slot.reason = uint16_t(vm.verdict.reason);
  slot.sessionPid = vm.sessionPid;
  putText(slot.name, vm.name);
  memcpy(slot.vm, vm.vm.bytes.data(), sizeof(slot.vm));
  slot.since = toMonotonicNs(vm.verdict.since);
  slot.sessionCount = vm.sessionCount;
  KJ_IF_MAYBE (report, vm.report) encodeReport(*report, slot);
  return slot;
}

kj::Maybe<BoardVm> decodeSlot(const board::Slot& untrusted) {
  auto colour = colourFromCode(untrusted.colour);
  if (untrusted.used != 1 || colour == nullptr || untrusted.transport > board::TRANSPORT_SERIAL ||
      untrusted.linkUp > 1 || untrusted.guestState > uint8_t(GuestState::RESUMED) || untrusted.name[0] == '\0') {
    return nullptr;
  }
  BoardVm vm;
  vm.name = getText(untrusted.name);
  memcpy(vm.vm.bytes.data(), untrusted.vm, sizeof(untrusted.vm));
  vm.verdict = {colour.orDefault(Colour::GRAY), reasonFromCode(untrusted.reason), fromMonotonicNs(untrusted.since)};
  vm.transport = board::Transport(untrusted.transport);
  vm.linkUp = untrusted.linkUp == 1;
  vm.sessionPid = untrusted.sessionPid;
  vm.sessionCount = untrusted.sessionCount;
  if (untrusted.lastHeartbeat != 0) vm.report = decodeReport(untrusted);
  return vm;
}

uint64_t toMonotonicNs(kj::TimePoint time) {
  return clamped<uint64_t>((time - kj::origin<kj::TimePoint>()) / kj::NANOSECONDS);
}

kj::TimePoint fromMonotonicNs(uint64_t ns) {
  constexpr uint64_t latest = std::numeric_limits<int64_t>::max() / 2;  // so that differences do not overflow
  return kj::origin<kj::TimePoint>() + int64_t(kj::min(ns, latest)) * kj::NANOSECONDS;
}

}  // namespace postern::host
