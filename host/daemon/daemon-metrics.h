#pragma once
// DaemonMetrics: what posternd has done since it was started, counted where it happens, for metrics-page.h.
//
// Bounded whatever guests, session processes and callers do: labels are words of ours, or ids of rules, of which
// MAX_DENYING_RULES have a count of their own. A call or an outcome that is none is counted as "other".

#include <kj/async.h>

#include "host/daemon/operation-report.h"
#include "host/metrics/loop-lag.h"
#include "host/metrics/series.h"
#include "transport/doorkeeper.h"

namespace postern::host {

constexpr size_t MAX_DENYING_RULES = 256;

struct DaemonMetrics {
  Counters operations{512, {"call", "outcome"}};
  Counters operationBytes{64, {"call"}};
  Counters decisions{4, {"outcome"}};
  Counters denials{MAX_DENYING_RULES, {"rule"}};
  Counters controlCalls{64, {"call"}};
  unsigned controlConnections = 0;  // now
  Counters turnedAway{8, {"reason"}};
  Histogram loopLag;

  // `timer` is the loop's, and outlives this.
  explicit DaemonMetrics(kj::Timer& timer);

  // An operation that is over, as a session process says: a claim. Single files of a copy and pings are left out: the
  // copy as a whole and VmMetrics have them.
  void operation(const OperationReport& report);
  // `rule`: that denied; empty: none allows it.
  void denied(kj::StringPtr rule);
  void allowed() { decisions.add({"allowed"}); }
  // Before anything was read of it.
  void turned(const TurnedAway& peer);

 private:
  LoopLag lag;
};

}  // namespace postern::host
