#include "host/session/channels/live-channel.h"

namespace postern::host {

namespace {

// Out of the VM: what comes out of its link.
TrafficWay portWay(RelayWay way) {
  return way == RelayWay::IN ? TrafficWay::THERE : TrafficWay::BACK;
}

}  // namespace

LiveChannel::LiveChannel(ChannelBook& book, kj::Own<ChannelBook::Place> placeParam, KeptChannel channelParam,
                         kj::Maybe<MirroredChannel::Terms> mirrorTerms)
    : book(book), place(kj::mv(placeParam)), channel(kj::mv(channelParam)), rule(book.countersOf(place->rule())) {
  channel.opened = book.timer().now();
  book.live.insert(channel.id, this);
  ++book.port.opened;
  ++book.port.active;
  KJ_IF_MAYBE (r, rule) {
    ++r->opened;
    ++r->active;
  }
  KJ_IF_MAYBE (terms, mirrorTerms) {
    mirror.emplace(kj::mv(*terms), channel.id, book.environment.clock, book.mirrorDropped)
        .opened(channel.service, channel.rule);
  }
  book.teller.countersChanged();
}

LiveChannel::~LiveChannel() noexcept(false) {
  relay = nullptr;  // gives back what has not passed
  book.live.erase(channel.id);
  --book.port.active;
  KJ_IF_MAYBE (r, rule) --r->active;
  auto took = book.timer().now() - channel.opened;
  KJ_IF_MAYBE (m, mirror) {
    m->closed(why, traffic, took);
    book.linger(kj::addRef(m->mirror()));
  }
  book.teller.countersChanged();
  book.teller.ended({kj::mv(channel), why, took, traffic});
}

kj::Promise<kj::StringPtr> LiveChannel::run(kj::Own<BulkChannel> bulk, kj::Own<RelayEnd> end) {
  RelayMeter& meter = *this;
  relay = kj::heap<Relay>(kj::mv(bulk), kj::mv(end), meter);
  return relay->run().exclusiveJoin(kj::mv(cutting.promise)).then([this](RelayOutcome outcome) {
    ended(outcome);
    return why;
  });
}

void LiveChannel::cut() {
  why = "cut"_kj;
  cutting.fulfiller->fulfill(RelayOutcome::RESET);
}

void LiveChannel::ended(RelayOutcome outcome) {
  relay = nullptr;
  if (why == "cut") return;
  switch (outcome) {
    case RelayOutcome::FINISHED:
      why = "finished"_kj;
      break;
    case RelayOutcome::SESSION_ENDED:
      why = "link-ended"_kj;
      break;
    case RelayOutcome::RESET:
      break;
  }
}

// The service is in the guest, unless the guest has asked.
TrafficWay LiveChannel::towards(RelayWay way) const {
  return channel.asked() ? portWay(way) : opposite(portWay(way));
}

kj::Maybe<kj::Promise<void>> LiveChannel::admit(RelayWay way, size_t bytes) {
  KJ_IF_MAYBE (wait, place->passage().admit(way, bytes)) {
    return wait->then([this, began = book.timer().now()]() { waited(book.timer().now() - began); });
  }
  return nullptr;
}

void LiveChannel::waited(kj::Duration time) {
  traffic.throttled += time;
  book.port.traffic.throttled += time;
  KJ_IF_MAYBE (r, rule) r->traffic.throttled += time;
}

void LiveChannel::passed(RelayWay way, kj::ArrayPtr<const kj::byte> bytes) {
  place->passage().leave(way);
  traffic.count(towards(way), bytes.size());
  book.port.traffic.count(portWay(way), bytes.size());
  KJ_IF_MAYBE (r, rule) r->traffic.count(towards(way), bytes.size());
  KJ_IF_MAYBE (m, mirror) m->passed(towards(way), bytes);
  book.teller.countersChanged();
}

void LiveChannel::dropped(RelayWay way, size_t) {
  place->passage().leave(way);
}

}  // namespace postern::host
