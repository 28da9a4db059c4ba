#pragma once
// From the texts of a policy's files to a Policy: everything that can be wrong is found here, and a policy with an
// error is none. Reads no file and no clock; never throws for what the texts hold.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/time.h>

#include "protocol/policy/policy.h"
#include "protocol/policy/problem.h"

namespace postern::policy {

struct LoadOptions {
  Side side;
  kj::Date now;  // wall-clock time: rules that have expired get a warning
  // Top-level keys of agent.toml that are not policy.
  kj::ArrayPtr<const kj::StringPtr> otherKeys = nullptr;
};

struct Loaded {
  kj::Own<const Policy> policy;
  kj::Array<Problem> warnings;
};

// The errors: at least one, sorted by file and line.
using LoadResult = kj::OneOf<Loaded, kj::Array<Problem>>;

// No files at all give a policy that denies everything. Every file begins with `policy = 1`; the order of files has no
// meaning. A failing `test` is an error like any other.
LoadResult load(kj::ArrayPtr<const SourceText> sources, const LoadOptions& options);

}  // namespace postern::policy
