#include "host/session/channels/channel-book.h"

#include <kj/debug.h>

#include "host/log/log.h"
#include "host/session/channels/live-channel.h"

namespace postern::host {

ChannelBook::ChannelBook(const Environment& environment, PortLimits& limits)
    : environment(environment),
      limits(limits),
      teller(environment.timer, [this](ChannelTeller::Traffic out) { write(out); }),
      tasks(*this) {}

ChannelBook::~ChannelBook() noexcept(false) {}

uint64_t ChannelBook::newId() {
  for (;;) {
    uint64_t id;
    environment.random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&id), sizeof(id)));
    if (id != 0 && !has(id)) return id;
  }
}

// Places -----------------------------------------------------------------------------------------------------------

// T104
kj::OneOf<kj::Own<ChannelBook::Place>, kj::String> ChannelBook::begin(kj::Maybe<const PassedRule&> rule) {
  kj::StringPtr ruleId = ""_kj;
  KJ_IF_MAYBE (r, rule) ruleId = r->id;
  if (places + teller.untoldEnds() >= MAX_VM_CHANNELS) {
    return kj::str(MAX_VM_CHANNELS, " channels of this VM are open, as many as may be; try again when one has ended");
  }
  auto begun = ChannelPassage::begin(limits, rule);
  KJ_IF_MAYBE (tooMany, begun.tryGet<kj::String>()) return kj::mv(*tooMany);
  return kj::heap<Place>(*this, kj::mv(begun.get<kj::Own<ChannelPassage>>()), ruleId);
}

ChannelBook::Place::Place(ChannelBook& book, kj::Own<ChannelPassage> passage, kj::StringPtr rule)
    : book(book), ruleId(kj::str(rule)), way(kj::mv(passage)) {
  ++book.places;
}

ChannelBook::Place::~Place() noexcept(false) {
  --book.places;
}

void ChannelBook::refused(kj::StringPtr rule) {
  ++port.refused;
  KJ_IF_MAYBE (counters, countersOf(rule)) ++counters->refused;
  teller.countersChanged();
}

// Channels ---------------------------------------------------------------------------------------------------------

kj::Promise<kj::StringPtr> ChannelBook::run(kj::Own<Place> place, KeptChannel channel,
                                            kj::Maybe<MirroredChannel::Terms> mirror, kj::Own<BulkChannel> bulk,
                                            kj::Own<RelayEnd> end) {
  auto opened = kj::heap<LiveChannel>(*this, kj::mv(place), kj::mv(channel), kj::mv(mirror));
  auto running = opened->run(kj::mv(bulk), kj::mv(end));
  return running.attach(kj::mv(opened));
}

void ChannelBook::neverOpened(KeptChannel channel, kj::StringPtr why) {
  teller.ended({kj::mv(channel), why, 0 * kj::SECONDS, TrafficCounters()});
}

void ChannelBook::cut(uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) (*channel)->cut();
}

void ChannelBook::cutAll() {
  for (auto& entry : live) entry.value->cut();
}

void ChannelBook::list(schema::SessionControl::AttachResults::Builder results) {
  kj::Vector<const KeptChannel*> listed;
  uint64_t words = 0;
  auto hasRoom = [&](const KeptChannel& channel) {
    capnp::MallocMessageBuilder alone;
    channel.write(alone.initRoot<schema::LiveChannel>(), timer().now());
    words += alone.sizeInWords() + 8;
    return words <= MAX_LISTED_WORDS;
  };
  for (auto& entry : live) {
    if (hasRoom(entry.value->kept())) {
      listed.add(&entry.value->kept());
    } else {
      entry.value->cut();
    }
  }
  teller.forEachUntoldEnd([&](const ChannelTeller::End& end) {
    if (hasRoom(end.channel)) listed.add(&end.channel);
  });
  auto out = results.initChannels(static_cast<unsigned>(listed.size()));
  for (unsigned i = 0; i < out.size(); ++i) listed[i]->write(out[i], timer().now());
}

void ChannelBook::listTraffic(schema::SessionControl::ChannelTrafficResults::Builder results) const {
  auto out = results.initChannels(static_cast<unsigned>(live.size()));
  unsigned i = 0;
  for (auto& entry : live) {
    auto channel = out[i++];
    channel.setId(entry.key);
    entry.value->passedTraffic().write(channel.initTraffic());
  }
}

// Counters ---------------------------------------------------------------------------------------------------------

kj::Maybe<PassCounters&> ChannelBook::countersOf(kj::StringPtr rule) {
  if (rule.size() == 0) return nullptr;
  KJ_IF_MAYBE (counters, rules.find(rule)) return **counters;
  if (rules.size() >= MAX_TOLD_RULES) {
    kj::String quiet;
    for (auto& entry : rules) {
      if (entry.value->active > 0) continue;
      quiet = kj::str(entry.key);
      break;
    }
    if (!rules.erase(quiet)) return nullptr;
  }
  return *rules.insert(kj::str(rule), kj::heap<PassCounters>()).value;
}

void ChannelBook::write(ChannelTeller::Traffic out) {
  out.setActive(port.active);
  out.setOpened(port.opened);
  out.setRefused(port.refused);
  port.traffic.write(out.initOutOf());
  out.setMirrorDropped(mirrorDropped);
  auto list = out.initRules(static_cast<unsigned>(rules.size()));
  unsigned i = 0;
  for (auto& entry : rules) {
    auto rule = list[i++];
    rule.setRule(entry.key);
    rule.setOpened(entry.value->opened);
    rule.setRefused(entry.value->refused);
    rule.setActive(entry.value->active);
    entry.value->traffic.write(rule.initTraffic());
  }
}

// Ends -------------------------------------------------------------------------------------------------------------

void ChannelBook::linger(kj::Own<Mirror> mirror) {
  if (!mirror->isBusy() || lingering >= MAX_LINGERING_MIRRORS) return;
  ++lingering;
  tasks.add(timer().afterDelay(MIRROR_LINGER).attach(kj::mv(mirror), kj::defer([this]() { --lingering; })));
}

void ChannelBook::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "channel-failed", exception.getDescription());
}

}  // namespace postern::host
