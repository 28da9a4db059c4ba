#include "guest-agent/agent/notify.h"

#include <systemd/sd-daemon.h>
#include <time.h>

#include "guest-agent/systemd-library.h"

namespace postern::guest {

namespace {

void notify(kj::StringPtr state) {
  static auto* const send = systemdFunction<decltype(sd_notify)>("sd_notify");
  if (send != nullptr) send(0, state.cStr());
}

}  // namespace

void notifyReady() {
  notify("READY=1");
}
void notifyReloading() {
  struct timespec now {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  auto microseconds = uint64_t(now.tv_sec) * 1000000 + uint64_t(now.tv_nsec) / 1000;
  notify(kj::str("RELOADING=1\nMONOTONIC_USEC=", microseconds));
}
void notifyStopping() {
  notify("STOPPING=1");
}
void notifyAlive() {
  notify("WATCHDOG=1");
}
void notifyStatus(kj::StringPtr line) {
  notify(kj::str("STATUS=", line));
}

kj::Maybe<kj::Duration> watchdogInterval() {
  auto* enabled = systemdFunction<decltype(sd_watchdog_enabled)>("sd_watchdog_enabled");
  uint64_t microseconds = 0;
  if (enabled == nullptr || enabled(0, &microseconds) <= 0) return nullptr;
  return int64_t(microseconds) * kj::MICROSECONDS;
}

}  // namespace postern::guest
