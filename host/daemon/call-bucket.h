#pragma once
// CallBucket: the calls of one peer (a local user, a session process), so many a second after a burst. Above it they
// wait, in the order of asking, and hold up nobody else; refilled by time. What bounds the number of those that wait is
// the flow limit of the peer's connection (LocalRpc).

#include <kj/async.h>
#include <kj/timer.h>

namespace postern::host {

class CallBucket {
 public:
  CallBucket(kj::Timer& timer, unsigned perSecond, unsigned burst);

  // When the next call may begin. One that is as much work as `cost` others counts like them.
  kj::Promise<void> take(unsigned cost = 1);

 private:
  kj::Timer& timer;
  const kj::Duration interval;
  const unsigned burst;
  kj::TimePoint nextFree;
};

}  // namespace postern::host
