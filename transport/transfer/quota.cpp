#include "transport/transfer/quota.h"

namespace postern::transfer {

kj::String sizeText(uint64_t bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  uint64_t tenths = bytes > UINT64_MAX / 10 ? UINT64_MAX : bytes * 10;
  while (tenths >= 10240 && unit + 1 < kj::size(units)) {
    tenths /= 1024;
    ++unit;
  }
  if (tenths % 10 == 0 || unit == 0) return kj::str(tenths / 10, " ", units[unit]);
  return kj::str(tenths / 10, ".", tenths % 10, " ", units[unit]);
}

kj::Maybe<Problem> overQuota(const PathScope& scope, const Totals& totals) {
  uint64_t entries = totals.files + totals.directories;
  if (scope.maxFiles > 0 && entries > scope.maxFiles) {
    return problem(ProblemKind::QUOTA,
                   kj::str(entries, " entries, and the policy allows ", scope.maxFiles, " in one transfer"));
  }
  if (scope.maxBytes > 0 && totals.bytes > scope.maxBytes) {
    return problem(ProblemKind::QUOTA, kj::str(sizeText(totals.bytes), ", and the policy allows ",
                                               sizeText(scope.maxBytes), " in one transfer"));
  }
  if (scope.maxDepth > 0 && totals.deepest > scope.maxDepth) return beyondDepth(scope.maxDepth);
  return nullptr;
}

Problem beyondDepth(uint32_t most) {
  return problem(ProblemKind::QUOTA, kj::str("deeper than the ", most, " directories that the policy allows"));
}

}  // namespace postern::transfer
