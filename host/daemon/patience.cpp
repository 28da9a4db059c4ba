#include "host/daemon/patience.h"

namespace postern::host {

// In two halves: after a standstill in the first, the loop reads what there is in the second.
kj::Promise<void> patience(kj::Timer& timer, kj::Duration atMost) {
  auto half = atMost / 2;
  return timer.afterDelay(half).then([&timer, half]() { return timer.afterDelay(half); });
}

}  // namespace postern::host
