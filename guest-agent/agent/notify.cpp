#include "guest-agent/agent/notify.h"

#include <systemd/sd-daemon.h>
#include <time.h>

namespace postern::guest {

void notifyReady() {
  sd_notify(0, "READY=1");
}
void notifyReloading() {
  struct timespec now {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  auto microseconds = uint64_t(now.tv_sec) * 1000000 + uint64_t(now.tv_nsec) / 1000;
  sd_notify(0, kj::str("RELOADING=1\nMONOTONIC_USEC=", microseconds).cStr());
}
void notifyStopping() {
  sd_notify(0, "STOPPING=1");
}
void notifyAlive() {
  sd_notify(0, "WATCHDOG=1");
}
void notifyStatus(kj::StringPtr line) {
  sd_notify(0, kj::str("STATUS=", line).cStr());
}

kj::Maybe<kj::Duration> watchdogInterval() {
  uint64_t microseconds = 0;
  if (sd_watchdog_enabled(0, &microseconds) <= 0) return nullptr;
  return int64_t(microseconds) * kj::MICROSECONDS;
}

}  // namespace postern::guest
