#pragma once
// ChannelTeller: what posternd is told of channels: each that opened for a program of the host, each that ended, those
// that were refused, and counters.
//
// Guarantees:
//  - an end is told until a posternd has heard it: what one that died had not answered, the next one is told, which has
//    found the channel in attach()'s list;
//  - counters come before the end of a channel that they have counted, and otherwise TRAFFIC_PERIOD apart;
//  - a posternd that does not answer has MAX_UNHEARD calls before it. What waits behind them is bounded: ends by the
//    book, for which a channel whose end is not told is still one of so many; refusals here, by counting them together.
// One loop.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/one-of.h>
#include <kj/timer.h>

#include <deque>
#include <list>

#include "host/session/channels/kept-channel.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

constexpr auto TRAFFIC_PERIOD = 200 * kj::MILLISECONDS;
// Between two counters where ends wait for them, so that a thousand ends do not bring a thousand counters.
constexpr auto ENDS_PERIOD = 50 * kj::MILLISECONDS;
// For a new posternd to take attach()'s list in before it is told what has ended of it.
constexpr auto LIST_PAUSE = 100 * kj::MILLISECONDS;
constexpr unsigned MAX_UNHEARD = 64;
constexpr unsigned MAX_WAITING_REFUSALS = 64;

class ChannelTeller {
 public:
  using Traffic = schema::SessionObserver::TrafficParams::Builder;
  // `counters` writes the counters of this moment.
  ChannelTeller(kj::Timer& timer, kj::Function<void(Traffic)> counters);
  ~ChannelTeller() noexcept(false);
  KJ_DISALLOW_COPY(ChannelTeller);

  // A posternd that is given a list of the channels, with those whose end is not told.
  void attach(schema::SessionObserver::Client posternd);
  void detach();
  // Another number for each posternd, and for the time between two.
  uint64_t currentAttachment() const { return attachment; }

  void opened(uint64_t id, uint64_t grant, kj::StringPtr service);
  void refused(uint64_t grant, kj::StringPtr service, kj::StringPtr why, uint32_t count = 1);
  struct End {
    KeptChannel channel;
    kj::StringPtr why;  // static
    kj::Duration took;
    TrafficCounters traffic;
  };
  void ended(End end);
  void countersChanged();

  size_t untoldEnds() const { return ends; }
  template <typename Do>
  void forEachUntoldEnd(Do&& what) const {
    for (auto& item : sent) {
      if (item.template is<End>()) what(item.template get<End>());
    }
    for (auto& item : waiting) {
      if (item.template is<End>()) what(item.template get<End>());
    }
  }

 private:
  struct Opened {
    uint64_t id;
    uint64_t grant;
    kj::String service;
  };
  struct Refused {
    uint64_t grant;
    kj::String service;
    kj::String why;
    uint32_t count;
  };
  using Item = kj::OneOf<Opened, End, Refused>;
  using Sent = std::list<Item>;

  kj::Timer& timer;
  kj::Function<void(Traffic)> counters;
  kj::Maybe<schema::SessionObserver::Client> posternd;
  uint64_t attachment = 0;  // answers of an earlier one come to nothing
  bool pausing = false;
  std::deque<Item> waiting;      // openings and ends
  std::deque<Refused> refusals;  // that wait
  Sent sent;                     // and not answered
  size_t ends = 0;
  bool changed = false;
  kj::TimePoint nextTraffic;  // not before
  unsigned unheardTraffic = 0;
  kj::Maybe<kj::TimePoint> wakesAt;
  struct Ignore;
  kj::Own<Ignore> ignore;
  kj::Own<kj::TaskSet> tasks;

  void sendWaiting();
  void sendChannels();
  bool isEndInFront() const { return !waiting.empty() && waiting.front().is<End>(); }
  void sendCounters();
  void wakeAt(kj::TimePoint time);
  void send(Item item);
  void answered(uint64_t by, Sent::iterator item);
};

}  // namespace postern::host
