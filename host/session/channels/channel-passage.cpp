#include "host/session/channels/channel-passage.h"

#include <kj/debug.h>

#include "transport/printable.h"

namespace postern::host {

kj::OneOf<kj::Own<ChannelPassage>, kj::String> ChannelPassage::begin(PortLimits& limits,
                                                                     kj::Maybe<const PassedRule&> rule) {
  auto now = limits.clock().now();
  auto port = limits.port();
  KJ_IF_MAYBE (bound, port->refusal(now)) return describeRefusal(*bound, *port, "the VM's port", "copies and channels");
  kj::Maybe<kj::Own<LimitGate>> ruleGate;
  KJ_IF_MAYBE (passed, rule) {
    auto gate = kj::addRef(const_cast<LimitGate&>(*passed->gate));
    KJ_IF_MAYBE (bound, gate->refusal(now)) {
      return describeRefusal(*bound, *gate, kj::str("rule '", printable(passed->id, 64), "' of the host's policy"),
                             "copies and channels");
    }
    ruleGate = kj::mv(gate);
  }
  return kj::heap<ChannelPassage>(limits, kj::mv(port), kj::mv(ruleGate));
}

ChannelPassage::ChannelPassage(PortLimits& limits, kj::Own<LimitGate> portGate, kj::Maybe<kj::Own<LimitGate>> ruleGate)
    : limits(limits), port(kj::mv(portGate), limits.clock().now()) {
  gates[0] = &port.gate();
  KJ_IF_MAYBE (gate, ruleGate) {
    gates[count++] = gate->get();
    rule = kj::heap<LimitPlace>(kj::mv(*gate), limits.clock().now());
  }
}

ChannelPassage::~ChannelPassage() noexcept(false) {}

kj::Maybe<kj::Promise<void>> ChannelPassage::admit(RelayWay way, size_t bytes) {
  auto& one = piece(way);
  if (one.enter(bytes)) return limits.pace(all(), bytes);
  return one.whenInside().then([this, bytes]() -> kj::Promise<void> {
    KJ_IF_MAYBE (wait, limits.pace(all(), bytes)) return kj::mv(*wait);
    return kj::READY_NOW;
  });
}

void ChannelPassage::leave(RelayWay way) {
  piece(way).leave();
}

bool ChannelPassage::Piece::enter(size_t bytes) {
  KJ_REQUIRE(!inside && waitsAt == nullptr, "one piece at a time");
  size = bytes;
  return tryEnter(nullptr);
}

bool ChannelPassage::Piece::tryEnter(kj::Maybe<LimitGate&> next) {
  for (auto* gate : passage.all()) {
    bool isNext = false;
    KJ_IF_MAYBE (g, next) isNext = g == gate;
    if (isNext ? gate->fits(size) : gate->hasRoom(size)) continue;
    gate->wait(*this);
    waitsAt = *gate;
    return false;
  }
  for (auto* gate : passage.all()) gate->takeRoom(size);
  inside = true;
  return true;
}

kj::Promise<void> ChannelPassage::Piece::whenInside() {
  auto waiting = kj::newPromiseAndFulfiller<void>();
  fulfiller = kj::mv(waiting.fulfiller);
  return kj::mv(waiting.promise);
}

void ChannelPassage::Piece::tryAgain() {
  auto& left = KJ_ASSERT_NONNULL(waitsAt);
  waitsAt = nullptr;
  if (tryEnter(left)) fulfiller->fulfill();
}

void ChannelPassage::Piece::leave() {
  KJ_IF_MAYBE (gate, waitsAt) {
    auto& left = *gate;
    waitsAt = nullptr;
    left.stopWaiting(*this);
  }
  if (!inside) return;
  inside = false;
  for (auto* gate : passage.all()) gate->giveRoom(size);
}

}  // namespace postern::host
