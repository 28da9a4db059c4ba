#pragma once
// Events: what happened on this host, kept for who comes later and told to who listens. The last MAX_EVENTS are kept,
// in memory alone: the audit log is the record. A listener that does not read holds up nobody; what is no longer kept
// when it reads again it has missed, and sees by the numbers.

#include <kj/async.h>
#include <kj/string.h>
#include <kj/time.h>

#include <deque>
#include <list>

#include "host/metrics/series.h"

namespace postern::host {

constexpr size_t MAX_EVENTS = 4096;

struct Event {
  uint64_t sequence;
  kj::Date time;
  kj::String vm;       // empty: of the host
  kj::StringPtr kind;  // static
  kj::String text;     // printable
  kj::String other;    // another VM that the text names; empty: none
};

class Events {
 public:
  void add(kj::StringPtr vm, kj::StringPtr kind, kj::String text, kj::StringPtr other = "");

  // How many there were since the start, by kind.
  const Counters& counts() const { return counted; }

  // The kept ones after `sequence`. Valid until the next add().
  template <typename Do>
  void forEachAfter(uint64_t sequence, Do&& what) const {
    for (auto& event : kept) {
      if (event.sequence > sequence) what(event);
    }
  }
  uint64_t last() const { return sequence; }
  // When there is one after `sequence`.
  kj::Promise<void> whenAfter(uint64_t sequence);

 private:
  std::deque<Event> kept;
  uint64_t sequence = 0;
  Counters counted{64, {"kind"}};
  std::list<kj::Own<kj::PromiseFulfiller<void>>> waiting;
};

}  // namespace postern::host
