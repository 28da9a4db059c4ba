#pragma once
// Waiting by turns of the event loop, for what must neither sleep nor keep others from running.

#include <kj/async.h>

namespace postern {

// Resolves behind all that is due now, so many times over. At least one. A turn with nothing to do costs a tenth of a
// microsecond.
kj::Promise<void> afterTurns(unsigned turns);

}  // namespace postern
