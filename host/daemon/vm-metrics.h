#pragma once
// VmMetrics: what has happened to one VM since posternd knows it, counted for metrics-page.h. Gone with the VM, and
// bounded: the labels are words of ours.

#include "host/metrics/series.h"
#include "host/session/ping-tally.h"

namespace postern::host {

struct VmMetrics {
  // "accepted"; "refused", and why.
  Counters handshakes{8, {"outcome", "reason"}};
  Counters losses{4, {"reason"}};
  Counters goodbyes{8, {"reason"}};
  uint64_t enrolments = 0;
  uint64_t rollbacks = 0;
  uint64_t deadSessionProcesses = 0;
  Histogram pings{kj::arrayPtr(PING_BOUNDS.data(), PING_BOUNDS.size())};
  uint64_t failedPings = 0;

  // Series that may be watched for are there from the start: what appears with its first count is seen to rise by none.
  VmMetrics();

  // As SessionClient::Handler has it; `untrustedCode` goes with the kind.
  void event(schema::SessionObserver::Kind kind, uint16_t untrustedCode);
  void pinged(const PingReport& report);
};

}  // namespace postern::host
