#pragma once
// How long posternd waits for what another process says. When posternd itself stood still meanwhile (SIGSTOP, a host
// under pressure), what was said has to be read before it counts as not said.

#include <kj/async.h>
#include <kj/debug.h>
#include <kj/timer.h>

namespace postern::host {

// After so long, or later: at least half of it lies behind a standstill.
kj::Promise<void> patience(kj::Timer& timer, kj::Duration atMost);

// What `answer` gives, or a failure of type OVERLOADED after that.
template <typename T>
kj::Promise<T> answeredWithin(kj::Timer& timer, kj::Duration atMost, kj::Promise<T> answer) {
  auto late = patience(timer, atMost).then([]() -> kj::Promise<T> {
    return KJ_EXCEPTION(OVERLOADED, "it did not answer in time");
  });
  return answer.exclusiveJoin(kj::mv(late));
}

}  // namespace postern::host
