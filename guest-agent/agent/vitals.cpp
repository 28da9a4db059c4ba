#include "guest-agent/agent/vitals.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest-agent/identity/bounded-file.h"
#include "protocol/bundle.h"

namespace postern::guest {

namespace {

// As much as two of the clocks' readings, made one after the other on a busy machine, may differ.
constexpr auto SUSPENDED_AT_LEAST = 1 * kj::SECONDS;
constexpr int MISSED_INTERVALS = 3;
// MemTotal and MemAvailable are among the first lines.
constexpr size_t MEMINFO_BYTES = 512;
constexpr size_t LOADAVG_BYTES = 64;

kj::Duration read(clockid_t clock) {
  struct timespec now {};
  clock_gettime(clock, &now);
  return int64_t(now.tv_sec) * kj::SECONDS + int64_t(now.tv_nsec) * kj::NANOSECONDS;
}

kj::ArrayPtr<const char> readFront(const kj::Maybe<kj::AutoCloseFd>& fd, kj::ArrayPtr<char> buffer) {
  KJ_IF_MAYBE (f, fd) {
    ssize_t n = pread(f->get(), buffer.begin(), buffer.size(), 0);
    if (n > 0) return buffer.slice(0, static_cast<size_t>(n));
  }
  return nullptr;
}

kj::Maybe<kj::AutoCloseFd> openForReading(kj::StringPtr path) {
  int fd = ::open(path.cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  return kj::AutoCloseFd(fd);
}

uint64_t milliseconds(kj::Duration time) {
  auto count = time / kj::MILLISECONDS;
  return count < 0 ? 0 : static_cast<uint64_t>(count);
}

bool isDigit(char c) {
  return c >= '0' && c <= '9';
}

// One number with two digits behind the point, times 100; takes it off the front of `text`.
kj::Maybe<uint32_t> takeHundredths(kj::ArrayPtr<const char>& text) {
  uint64_t value = 0;
  size_t at = 0;
  while (at < text.size() && isDigit(text[at]) && value < 10000000) value = value * 10 + uint64_t(text[at++] - '0');
  if (at == 0 || at + 3 > text.size() || text[at] != '.' || !isDigit(text[at + 1]) || !isDigit(text[at + 2])) {
    return nullptr;
  }
  value = value * 100 + uint64_t(text[at + 1] - '0') * 10 + uint64_t(text[at + 2] - '0');
  at += 3;
  while (at < text.size() && text[at] == ' ') ++at;
  text = text.slice(at, text.size());
  return static_cast<uint32_t>(value);
}

}  // namespace

kj::Duration SystemClocks::monotonic() const {
  return read(CLOCK_MONOTONIC);
}
kj::Duration SystemClocks::boot() const {
  return read(CLOCK_BOOTTIME);
}

GapWatch::GapWatch(const Clocks& clocks) : clocks(clocks), apart(clocks.boot() - clocks.monotonic()) {}

bool GapWatch::sawGap(kj::Duration interval) {
  auto now = clocks.monotonic();
  auto apartNow = clocks.boot() - now;
  bool gap = apartNow - apart > SUSPENDED_AT_LEAST;
  KJ_IF_MAYBE (before, last) gap = gap || now - *before > interval * MISSED_INTERVALS;
  apart = apartNow;
  last = now;
  return gap;
}

void GapWatch::skip() {
  last = nullptr;
}

Vitals::Vitals(kj::Maybe<kj::AutoCloseFd> loadavg, kj::Maybe<kj::AutoCloseFd> meminfo, const Clocks& clocks,
               Uint128 bootId)
    : loadavg(kj::mv(loadavg)), meminfo(kj::mv(meminfo)), clocks(clocks), boot(bootId), began(clocks.boot()) {}

Vitals Vitals::open(const Clocks& clocks) {
  Uint128 bootId;
  auto content = readBounded("/proc/sys/kernel/random/boot_id", 64);
  if (content.is<kj::Array<char>>()) bootId = parseBootId(content.get<kj::Array<char>>());
  return Vitals(openForReading("/proc/loadavg"), openForReading("/proc/meminfo"), clocks, bootId);
}

void Vitals::fill(schema::Heartbeat::Builder out) const {
  out.setBootIdHigh(boot.high);
  out.setBootIdLow(boot.low);
  auto up = clocks.boot();
  out.setUptimeMilliseconds(milliseconds(up));
  out.setAgentUptimeMilliseconds(milliseconds(up - began));
  char buffer[MEMINFO_BYTES];
  auto load = parseLoadavg(readFront(loadavg, kj::arrayPtr(buffer, LOADAVG_BYTES)));
  out.setLoad1(load.one);
  out.setLoad5(load.five);
  out.setLoad15(load.fifteen);
  auto memory = readFront(meminfo, buffer);
  out.setMemoryTotalKiB(meminfoValue(memory, "MemTotal"));
  out.setMemoryAvailableKiB(meminfoValue(memory, "MemAvailable"));
}

Uint128 parseBootId(kj::ArrayPtr<const char> text) {
  while (text.size() > 0 && text.back() == '\n') text = text.slice(0, text.size() - 1);
  Uint128 result;
  KJ_IF_MAYBE (id, parseVmId(text)) {
    for (size_t i = 0; i < 16; ++i) {
      auto& half = i < 8 ? result.high : result.low;
      half = half << 8 | id->bytes[i];
    }
  }
  return result;
}

LoadAverages parseLoadavg(kj::ArrayPtr<const char> text) {
  LoadAverages result;
  KJ_IF_MAYBE (one, takeHundredths(text)) {
    KJ_IF_MAYBE (five, takeHundredths(text)) {
      KJ_IF_MAYBE (fifteen, takeHundredths(text)) result = {*one, *five, *fifteen};
    }
  }
  return result;
}

uint64_t meminfoValue(kj::ArrayPtr<const char> text, kj::StringPtr name) {
  size_t at = 0;
  while (at < text.size()) {
    auto rest = text.slice(at, text.size());
    auto* found = static_cast<const char*>(memchr(rest.begin(), '\n', rest.size()));
    if (found == nullptr) return 0;  // cut off
    auto line = kj::arrayPtr(rest.begin(), found);
    at += line.size() + 1;
    if (line.size() <= name.size() || line.slice(0, name.size()) != name.asArray() || line[name.size()] != ':')
      continue;
    uint64_t value = 0;
    for (char c : line.slice(name.size() + 1, line.size())) {
      if (isDigit(c) && value < uint64_t(1) << 50) value = value * 10 + uint64_t(c - '0');
    }
    return value;
  }
  return 0;
}

}  // namespace postern::guest
