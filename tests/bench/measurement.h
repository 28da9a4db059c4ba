#pragma once
// The measurements. Each function makes one run: reference, then ours, one sample for each of its rows.

#include "tests/bench/report.h"

namespace postern::bench {

struct Options {
  bool quick = false;  // as little work as shows that everything runs; the numbers mean nothing
};

void measureBulk(const Options& options, Report& report);
void measureFile(const Options& options, Report& report);
void measurePipelinedRpc(const Options& options, Report& report);
void measurePing(const Options& options, Report& report);
void measurePingUnderBulk(const Options& options, Report& report);
void measureHandshake(const Options& options, Report& report);
void measureMemory(const Options& options, Report& report);
void measurePolicy(const Options& options, Report& report);
void measureProductPing(const Options& options, Report& report);

}  // namespace postern::bench
