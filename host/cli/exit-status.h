#pragma once
// What postern's exit status says. Stable: scripts branch on it.

#include <kj/array.h>

#include "host/client/failure.h"

namespace postern::cli {

enum class ExitStatus : int {
  DONE = 0,
  FAILED = 1,
  USAGE = 2,  // also: a VM that is not known
  DENIED = 3,
  NOT_CONNECTED = 4,
  TIMED_OUT = 5,
  REFUSED = 6,  // the other end refused, or cannot do it
  INTERRUPTED = 130,
};

ExitStatus exitStatusOf(client::FailureKind kind);

// Of several VMs: the first of DENIED, NOT_CONNECTED, TIMED_OUT, REFUSED, FAILED, USAGE that one of them had. An
// interruption is stronger than all.
ExitStatus worst(ExitStatus a, ExitStatus b);

}  // namespace postern::cli
