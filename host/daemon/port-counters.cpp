#include "host/daemon/port-counters.h"

#include "host/metrics/bounded-number.h"

namespace postern::host {

void PortCounters::Pass::end() {
  base = sum();
  base.active = 0;
  latest = PassClaim();
}

void PortCounters::denied(kj::StringPtr by, uint64_t times) {
  deniedHere += times;
  if (lastDenied != by) lastDenied = kj::str(by);
}

void PortCounters::claimed(PortClaim claim) {
  port.latest = claim.counters;
  mirrorDropped = claim.mirrorDropped;
  for (auto& entry : rules) entry.value.isClaimed = false;
  for (auto& entry : claim.rules) {
    KJ_IF_MAYBE (known, rules.find(entry.rule)) {
      known->latest = entry.counters;
      known->isClaimed = true;
    } else if (rules.size() < MAX_COUNTED_RULES) {
      rules.insert(kj::mv(entry.rule), Pass{PassClaim(), entry.counters});
    }
  }
  // One that has made room in the process begins there at 0 when it comes back.
  for (auto& entry : rules) {
    if (!entry.value.isClaimed) entry.value.end();
  }
}

void PortCounters::sessionEnded() {
  port.end();
  mirrorDroppedBefore = boundedSum(mirrorDroppedBefore, mirrorDropped);
  mirrorDropped = 0;
  for (auto& entry : rules) entry.value.end();
}

BoardPort PortCounters::forBoard() const {
  auto sum = port.sum();
  BoardPort board;
  board.opened = sum.opened;
  board.denied = deniedHere;
  board.refused = boundedSum(sum.refused, refusedHere);
  board.active = sum.active;
  board.bytesOut = sum.traffic.bytesThere;
  board.bytesIn = sum.traffic.bytesBack;
  board.messagesOut = sum.traffic.messagesThere;
  board.messagesIn = sum.traffic.messagesBack;
  board.throttledNanoseconds = sum.traffic.throttledNanoseconds;
  board.mirrorDropped = boundedSum(mirrorDroppedBefore, mirrorDropped);
  board.lastDenied = kj::str(lastDenied);
  return board;
}

void PortCounters::write(schema::Port::Builder to) const {
  auto sum = port.sum();
  to.setOpened(sum.opened);
  to.setDenied(deniedHere);
  to.setRefused(boundedSum(sum.refused, refusedHere));
  to.setActive(static_cast<uint32_t>(sum.active));
  sum.traffic.write(to.initOutOf());
  to.setLastDeniedRule(lastDenied);
  to.setMirrorDropped(boundedSum(mirrorDroppedBefore, mirrorDropped));
}

}  // namespace postern::host
