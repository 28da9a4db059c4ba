#pragma once
// What the broker, the main process, tells the service manager. Without one, nothing happens.

#include <kj/string.h>
#include <kj/time.h>

namespace postern::guest {

void notifyReady();
void notifyReloading();
void notifyStopping();
void notifyAlive();  // WATCHDOG=1
void notifyStatus(kj::StringPtr line);

// How often the service manager wants to hear notifyAlive() at the latest; null: it does not.
kj::Maybe<kj::Duration> watchdogInterval();

}  // namespace postern::guest
