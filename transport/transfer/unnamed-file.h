#pragma once
// A file without a name, for bytes of a stream whose end is not known yet: in $TMPDIR or /tmp, so that it needs no
// memory; where that cannot be, in memory. It is gone with its descriptor.

#include <kj/array.h>
#include <kj/io.h>
#include <kj/one-of.h>

#include "protocol/transfer/problem.h"

namespace postern::transfer {

kj::OneOf<kj::AutoCloseFd, Problem> newUnnamedFile();

// All bytes from `from`, beginning where it is, to `to`. Bytes, or what went wrong: `what` names the end that failed.
kj::OneOf<uint64_t, Problem> copyBytes(int from, kj::StringPtr fromName, int to, kj::StringPtr toName);
// 0 or errno.
int writeAll(int to, kj::ArrayPtr<const kj::byte> bytes);

}  // namespace postern::transfer
