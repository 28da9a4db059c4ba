#pragma once
// What every program with Prometheus metrics says of its own process, under the names that they all use: process_*.

#include "host/metrics/exposition.h"

namespace postern::host {

// Reads /proc/self. What cannot be read is left out.
void writeProcessMetrics(Exposition& to);

}  // namespace postern::host
