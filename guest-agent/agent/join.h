#pragma once
// `postern-agent join [FILE]`: puts a bundle where the agent finds it, and tells a running agent. The bundle comes from
// standard input or a file, never from argv, which every user of the machine can read.
//
// With an identity there already it does nothing, unless forced; then a bundle for the same VM is a rekeying
// (identity/pairing.h), and for any other identity the old one is forgotten first.

#include <kj/string.h>

#include "guest-agent/paths.h"

namespace postern::guest {

enum class Force { NO, YES };

// Prints one line, and gives the exit status: 0 done, 1 not.
int runJoin(const Paths& paths, kj::Maybe<kj::StringPtr> file, Force force);

}  // namespace postern::guest
