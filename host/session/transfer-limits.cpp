#include "host/session/transfer-limits.h"

#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/file-worker.h"

namespace postern::host {

namespace {

// Where a rule has a rate and no burst: enough that a loop which is late by some milliseconds catches up.
uint64_t burstFor(uint64_t rate, uint64_t burst) {
  return burst > 0 ? burst : kj::max(rate / 10, uint64_t(transfer::DATA_BYTES));
}

}  // namespace

TransferLimits::Numbers TransferLimits::numbersOf(schema::Limit::Reader limit) {
  return {limit.getRate(), limit.getBurst(), limit.getPeak(), limit.getOpen()};
}

void TransferLimits::Gate::set(const Numbers& now) {
  numbers = now;
  bucket.set(now.rate, burstFor(now.rate, now.burst));
  peak.set(now.peak, burstFor(now.peak, 0));
}

bool TransferLimits::Gate::enter() {
  if (numbers.open > 0 && open >= numbers.open) return false;
  ++open;
  return true;
}

kj::Duration TransferLimits::Gate::take(uint64_t bytes, kj::TimePoint now) {
  return kj::max(bucket.take(bytes, now), peak.take(bytes, now));
}

TransferLimits::Gate& TransferLimits::gateOf(kj::StringPtr rule) {
  KJ_IF_MAYBE (gate, rules.find(rule)) return **gate;
  if (rules.size() >= MAX_IDLE_RULES) {
    rules.eraseAll([now = timer.now()](kj::String&, kj::Own<Gate>& gate) { return gate->isIdle(now); });
  }
  return *rules.insert(kj::str(rule), kj::heap<Gate>()).value;
}

// T78
kj::OneOf<kj::Own<TransferLimits::Use>, kj::String> TransferLimits::begin(schema::Grant::Reader grant,
                                                                          schema::FileGrant::Reader files,
                                                                          uint64_t callerRate) {
  if (transfers >= transfer::MAX_TRANSFERS) {
    return kj::str(transfer::MAX_TRANSFERS, " copies from or to this VM are under way; try again when one is over");
  }
  // T92
  if (transfer::FileWorker::leftBehind() > transfer::MAX_LEFT_BEHIND) {
    return kj::str("earlier copies from or to this VM are over, but a disk or a file server here still holds their ",
                   "files; try again when it answers");
  }
  port.set(numbersOf(grant.getPort()));
  auto use = kj::heap<Use>(*this, files, callerRate);
  if (!port.enter()) {
    return kj::str("the VM's port has room for ", port.numbers.open,
                   " copies at a time, and they are under way; try again when one is over");
  }
  use->inPort = true;
  return kj::mv(use);
}

TransferLimits::Use::Use(TransferLimits& limits, schema::FileGrant::Reader files, uint64_t callerRate)
    : limits(limits), own(callerRate, burstFor(callerRate, 0)) {
  ++limits.transfers;
  for (auto limit : files.getLimits()) rules.add(Rule{kj::str(limit.getRule()), numbersOf(limit), nullptr});
}

TransferLimits::Use::~Use() noexcept(false) {
  --limits.transfers;
  if (inPort) --limits.port.open;
  for (auto& rule : rules) {
    KJ_IF_MAYBE (gate, rule.gate) --gate->open;
  }
}

kj::Maybe<kj::String> TransferLimits::Use::enter(kj::StringPtr rule) {
  current = nullptr;
  for (auto& limited : rules) {
    if (limited.id != rule) continue;
    if (limited.gate == nullptr) {
      auto& gate = limits.gateOf(rule);
      gate.set(limited.numbers);
      if (!gate.enter()) {
        return kj::str("rule '", printable(rule, 64), "' of the host's policy allows ", limited.numbers.open,
                       " copies at a time, and they are under way; try again when one is over");
      }
      limited.gate = gate;
    }
    current = limited.gate;
    return nullptr;
  }
  return nullptr;
}

kj::Promise<void> TransferLimits::Use::pace(uint64_t bytes) {
  auto now = limits.timer.now();
  auto wait = kj::max(own.take(bytes, now), limits.port.take(bytes, now));
  KJ_IF_MAYBE (gate, current) wait = kj::max(wait, gate->take(bytes, now));
  if (wait == 0 * kj::SECONDS) return kj::READY_NOW;
  return limits.timer.afterDelay(wait);
}

}  // namespace postern::host
