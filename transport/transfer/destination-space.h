#pragma once
// Whether a file system has room for what was announced. It may fill up all the same: then that is a problem of the
// entry that does not fit.

#include "protocol/transfer/entry.h"

namespace postern::transfer {

// `freed` bytes are there already, in what the transfer replaces or goes on from.
kj::Maybe<Problem> lacksSpace(int folder, uint64_t bytes, uint64_t entries, uint64_t freed);

}  // namespace postern::transfer
