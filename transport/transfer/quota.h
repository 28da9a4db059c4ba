#pragma once
// A policy's quotas of one transfer, held against what was announced and against what came.

#include "protocol/transfer/entry.h"
#include "protocol/transfer/path-scope.h"

namespace postern::transfer {

kj::Maybe<Problem> overQuota(const PathScope& scope, const Totals& totals);
Problem beyondDepth(uint32_t most);

// "1.5 GiB"
kj::String sizeText(uint64_t bytes);

}  // namespace postern::transfer
