#pragma once
// Waiting for a FileTransfer while something is shown of it.

#include <kj/function.h>

#include "host/cli/invocation.h"
#include "host/client/file-transfer.h"

namespace postern::cli {

struct TransferWait {
  kj::StringPtr vm;
  kj::Duration tick;               // how often `during` is called
  kj::Maybe<kj::Duration> stalls;  // after so long without any progress it has timed out
};

// What came of it; `during` is called again and again, and once more after the end. At Ctrl-C, when it stalls, or when
// `during` throws, the transfer is ended first: the opener undoes what is not whole, for at most UNDO_LIMIT.
constexpr auto UNDO_LIMIT = 5 * kj::SECONDS;
client::FileOutcome waitForTransfer(Invocation& run, client::FileTransfer& transfer, const TransferWait& wait,
                                    kj::Function<void()> during);

}  // namespace postern::cli
