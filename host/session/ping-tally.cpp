#include "host/session/ping-tally.h"

#include <algorithm>

namespace postern::host {

namespace {

// More than a session can have made between two reports, and far from where sums of them would overflow.
constexpr uint64_t MAX_PINGS_TOLD = uint64_t(1) << 24;
// That one of them can have taken: it is given up after 10 s.
constexpr uint64_t MAX_PING_NANOSECONDS = 60'000'000'000;

}  // namespace

void PingTally::answered(kj::Duration took) {
  auto ns = uint64_t(kj::max(took, 0 * kj::NANOSECONDS) / kj::NANOSECONDS);
  auto seconds = double(ns) / 1e9;
  auto bucket = std::lower_bound(PING_BOUNDS.begin(), PING_BOUNDS.end(), seconds) - PING_BOUNDS.begin();
  ++counts[size_t(bucket)];
  ++count;
  nanoseconds += ns;
}

void PingTally::write(schema::SessionObserver::PingsParams::Builder to) const {
  auto list = to.initCounts(static_cast<unsigned>(counts.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, counts[i]);
  to.setNanoseconds(nanoseconds);
  to.setFailures(failures);
}

kj::Maybe<PingReport> parsePingReport(schema::SessionObserver::PingsParams::Reader untrusted) {
  auto list = untrusted.getCounts();
  PingReport report;
  if (list.size() != report.counts.size()) return nullptr;
  uint64_t count = 0;
  for (unsigned i = 0; i < list.size(); ++i) {
    report.counts[i] = kj::min(list[i], MAX_PINGS_TOLD);
    count += report.counts[i];
  }
  report.seconds = double(kj::min(untrusted.getNanoseconds(), count * MAX_PING_NANOSECONDS)) / 1e9;
  report.failures = kj::min(untrusted.getFailures(), MAX_PINGS_TOLD);
  return report;
}

}  // namespace postern::host
