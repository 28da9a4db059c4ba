#include "host/session/channels/channel-teller.h"

#include <kj/debug.h>

namespace postern::host {

// A posternd that has gone fails what was on its way to it, and is told again.
struct ChannelTeller::Ignore final : public kj::TaskSet::ErrorHandler {
  void taskFailed(kj::Exception&&) override {}
};

ChannelTeller::ChannelTeller(kj::Timer& timer, kj::Function<void(Traffic)> counters)
    : timer(timer), counters(kj::mv(counters)), nextTraffic(timer.now()), ignore(kj::heap<Ignore>()) {
  tasks = kj::heap<kj::TaskSet>(*ignore);
}

ChannelTeller::~ChannelTeller() noexcept(false) {}

void ChannelTeller::detach() {
  ++attachment;
  posternd = nullptr;
  unheardTraffic = 0;
  while (!sent.empty()) {
    if (sent.back().is<End>()) waiting.push_front(kj::mv(sent.back()));
    sent.pop_back();
  }
}

void ChannelTeller::attach(schema::SessionObserver::Client client) {
  detach();
  // What has opened is in the list.
  std::deque<Item> untold;
  for (auto& item : waiting) {
    if (item.is<End>()) untold.push_back(kj::mv(item));
  }
  waiting = kj::mv(untold);
  refusals.clear();
  posternd = kj::mv(client);
  changed = true;
  pausing = ends > 0;
  auto wait = pausing ? timer.afterDelay(LIST_PAUSE) : kj::evalLast([]() {});
  tasks->add(wait.then([this, now = attachment]() {
    if (now != attachment) return;
    pausing = false;
    sendWaiting();
  }));
}

void ChannelTeller::opened(uint64_t id, uint64_t grant, kj::StringPtr service) {
  waiting.push_back(Opened{id, grant, kj::str(service)});
  sendWaiting();
}

void ChannelTeller::refused(uint64_t grant, kj::StringPtr service, kj::StringPtr why, uint32_t count) {
  for (auto& earlier : refusals) {
    if (earlier.grant == grant && earlier.service == service && earlier.why == why) {
      earlier.count += count;
      return;
    }
  }
  if (refusals.size() >= MAX_WAITING_REFUSALS) return;  // the counters have them
  refusals.push_back(Refused{grant, kj::str(service), kj::str(why), count});
  sendWaiting();
}

void ChannelTeller::ended(End end) {
  ++ends;
  waiting.push_back(kj::mv(end));
  sendWaiting();
}

void ChannelTeller::countersChanged() {
  if (changed) return;
  changed = true;
  sendWaiting();
}

void ChannelTeller::sendWaiting() {
  if (posternd == nullptr || pausing) return;
  sendChannels();
  while (sent.size() < MAX_UNHEARD && !refusals.empty()) {
    auto next = kj::mv(refusals.front());
    refusals.pop_front();
    send(kj::mv(next));
  }
  if (!changed) return;
  if (timer.now() < nextTraffic) return wakeAt(nextTraffic);
  // A posternd that is behind gets the newest of them when it has answered.
  if (unheardTraffic == 0) sendCounters();
}

// In order; an end waits for counters, and whatever is behind it too.
void ChannelTeller::sendChannels() {
  while (sent.size() < MAX_UNHEARD && !waiting.empty()) {
    if (isEndInFront() && changed) {
      auto due = nextTraffic - (TRAFFIC_PERIOD - ENDS_PERIOD);
      if (timer.now() < due) return wakeAt(due);
      sendCounters();
    }
    auto next = kj::mv(waiting.front());
    waiting.pop_front();
    send(kj::mv(next));
  }
}

void ChannelTeller::wakeAt(kj::TimePoint time) {
  KJ_IF_MAYBE (other, wakesAt) {
    if (*other <= time) return;
  }
  wakesAt = time;
  tasks->add(timer.atTime(time).then([this, time]() {
    KJ_IF_MAYBE (latest, wakesAt) {
      if (*latest == time) wakesAt = nullptr;
    }
    sendWaiting();
  }));
}

void ChannelTeller::sendCounters() {
  auto request = KJ_ASSERT_NONNULL(posternd).trafficRequest();
  counters(request);
  changed = false;
  nextTraffic = timer.now() + TRAFFIC_PERIOD;
  ++unheardTraffic;
  auto heard = [this, by = attachment]() {
    if (by != attachment) return;
    --unheardTraffic;
    sendWaiting();
  };
  tasks->add(request.send().then([heard](auto) mutable { heard(); }, [heard](kj::Exception&&) mutable { heard(); }));
}

void ChannelTeller::send(Item next) {
  sent.push_back(kj::mv(next));
  auto item = --sent.end();
  auto& client = KJ_ASSERT_NONNULL(posternd);
  kj::Promise<void> told = nullptr;
  KJ_SWITCH_ONEOF(*item) {
    KJ_CASE_ONEOF(opened, Opened) {
      auto request = client.channelOpenedRequest();
      request.setId(opened.id);
      request.setGrant(opened.grant);
      request.setService(opened.service);
      told = request.send().ignoreResult();
    }
    KJ_CASE_ONEOF(refused, Refused) {
      auto request = client.channelRefusedRequest();
      request.setGrant(refused.grant);
      request.setService(refused.service);
      request.setWhy(refused.why);
      request.setCount(refused.count);
      told = request.send().ignoreResult();
    }
    KJ_CASE_ONEOF(end, End) {
      auto request = client.channelClosedRequest();
      request.setId(end.channel.id);
      request.setWhy(end.why);
      request.setMicroseconds(uint64_t(end.took / kj::MICROSECONDS));
      end.traffic.write(request.initTraffic());
      told = request.send().ignoreResult();
    }
  }
  tasks->add(told.then([this, by = attachment, item]() { answered(by, item); },
                       [this, by = attachment, item](kj::Exception&& e) {
                         // One that is gone is noticed soon, and the next one is told. One that cannot take it has had
                         // it.
                         if (e.getType() != kj::Exception::Type::DISCONNECTED) answered(by, item);
                       }));
}

void ChannelTeller::answered(uint64_t by, Sent::iterator item) {
  if (by != attachment) return;  // it is no longer among them
  if (item->is<End>()) --ends;
  sent.erase(item);
  sendWaiting();
}

}  // namespace postern::host
