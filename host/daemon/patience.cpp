#include "host/daemon/patience.h"

namespace postern::host {

namespace {

// What a wait of a loop that did not stand still is never late by.
constexpr auto STANDSTILL = 100 * kj::MILLISECONDS;

}  // namespace

// In two halves: after a standstill in the first, the loop reads what there is in the second; after one in the second,
// in a third.
kj::Promise<void> patience(kj::Timer& timer, kj::Duration atMost) {
  auto half = atMost / 2;
  return timer.afterDelay(half).then([&timer, half]() {
    auto due = timer.now() + half;
    return timer.atTime(due).then([&timer, due, half]() -> kj::Promise<void> {
      if (timer.now() - due < STANDSTILL) return kj::READY_NOW;
      return timer.afterDelay(half);
    });
  });
}

}  // namespace postern::host
