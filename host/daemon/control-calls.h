#pragma once
// Control for one caller: each call decided for that user, recorded, and carried out or refused with a Failure.

#include "host/daemon/control-server.h"

namespace postern::host {

// `bucket` and `daemon` outlive it.
schema::Control::Client newControl(Daemon& daemon, CallBucket& bucket, kj::Promise<kj::Own<const LocalCaller>> caller);

}  // namespace postern::host
