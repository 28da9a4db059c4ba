#pragma once
// PowerRelay: the caller's PowerObserver as the guest sees it: no more than so many steps, each with printable, bounded
// text; and whether the guest may proceed is the caller's word alone. Each step is told to `observe` as well, in words.

#include <kj/function.h>

#include "protocol/guest.capnp.h"

namespace postern::host {

postern::schema::PowerObserver::Client newPowerRelay(postern::schema::PowerObserver::Client caller, unsigned maxSteps,
                                                     kj::Function<void(kj::StringPtr)> observe);

}  // namespace postern::host
