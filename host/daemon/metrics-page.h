#pragma once
// The page of posternd's metrics (docs/OPERATIONS.md, "Metrics", has the table). What was counted stands in
// DaemonMetrics, VmMetrics and the parts themselves; what is so now is looked up while the page is made.
//
// It has a bounded number of lines for each VM that is registered, and a bounded number of others.

#include "host/daemon/daemon.h"
#include "host/metrics/exposition.h"

namespace postern::host {

kj::String makeMetricsPage(Daemon& daemon);

// Its parts.
void writeVmMetrics(Exposition& to, Daemon& daemon);
void writeChannelMetrics(Exposition& to, Daemon& daemon);

}  // namespace postern::host
