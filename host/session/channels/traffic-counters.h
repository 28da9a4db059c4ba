#pragma once
// TrafficCounters: what has passed, exact: control.capnp's Traffic. A piece counts once the other side has taken it.

#include <kj/time.h>
#include <stdint.h>

#include "host/control/control.capnp.h"

namespace postern::host {

// Towards the service of a channel, or out of the VM of a port; and the other way.
enum class TrafficWay : uint8_t { THERE, BACK };

inline TrafficWay opposite(TrafficWay way) {
  return way == TrafficWay::THERE ? TrafficWay::BACK : TrafficWay::THERE;
}

struct TrafficCounters {
  struct Way {
    uint64_t bytes = 0;
    uint64_t messages = 0;
  };
  Way there, back;
  kj::Duration throttled = 0 * kj::SECONDS;  // summed over all pieces that waited

  void count(TrafficWay way, size_t bytes) {
    auto& to = way == TrafficWay::THERE ? there : back;
    to.bytes += bytes;
    ++to.messages;
  }
  void write(schema::Traffic::Builder to) const {
    to.setBytesThere(there.bytes);
    to.setBytesBack(back.bytes);
    to.setMessagesThere(there.messages);
    to.setMessagesBack(back.messages);
    to.setThrottledNanoseconds(uint64_t(throttled / kj::NANOSECONDS));
  }
};

}  // namespace postern::host
