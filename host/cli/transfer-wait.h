#pragma once
// Waiting for a FileTransfer while something is shown of it.

#include <kj/function.h>

#include "host/cli/invocation.h"
#include "host/client/file-transfer.h"

namespace postern::cli {

// How long an opener has to take back what is not whole; one of a stream has nothing to take back.
constexpr auto UNDO_LIMIT = 5 * kj::SECONDS;
constexpr auto STREAM_UNDO_LIMIT = 100 * kj::MILLISECONDS;

struct TransferWait {
  kj::StringPtr vm;
  kj::Duration tick;               // how often `during` is called
  kj::Maybe<kj::Duration> stalls;  // after so long without any progress it has timed out
  kj::Duration undo = UNDO_LIMIT;
};

// What came of it; `during` is called again and again, and once more after the end. At Ctrl-C, when it stalls, or when
// `during` throws, the transfer is ended first; an opener that has not ended after `undo`, because a disk, a pipe or a
// terminal holds it, is left alone: it ends with the program.
client::FileOutcome waitForTransfer(Invocation& run, client::FileTransfer& transfer, const TransferWait& wait,
                                    kj::Function<void()> during);

}  // namespace postern::cli
