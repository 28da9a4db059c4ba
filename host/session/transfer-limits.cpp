#include "host/session/transfer-limits.h"

#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/file-worker.h"

namespace postern::host {

// T78
kj::OneOf<kj::Own<TransferLimits::Use>, kj::String> TransferLimits::begin(uint64_t callerRate) {
  if (transfers >= transfer::MAX_TRANSFERS) {
    return kj::str(transfer::MAX_TRANSFERS, " copies from or to this VM are under way; try again when one is over");
  }
  // T92
  if (transfer::FileWorker::leftBehind() > transfer::MAX_LEFT_BEHIND) {
    return kj::str("earlier copies from or to this VM are over, but a disk or a file server here still holds their ",
                   "files; try again when it answers");
  }
  auto port = limits.port();
  KJ_IF_MAYBE (bound, port->refusal(limits.clock().now())) {
    return describeRefusal(*bound, *port, "the VM's port", "copies and channels");
  }
  return kj::heap<Use>(*this, kj::mv(port), callerRate);
}

TransferLimits::Use::Use(TransferLimits& transfers, kj::Own<LimitGate> portGate, uint64_t callerRate)
    : transfers(transfers), port(kj::mv(portGate), transfers.limits.clock().now()), own(kj::refcounted<LimitGate>()) {
  ++transfers.transfers;
  LimitNumbers numbers;
  if (callerRate > 0) numbers.rate = callerRate;
  own->set(numbers, transfers.limits.clock().now());
}

TransferLimits::Use::~Use() noexcept(false) {
  --transfers.transfers;
}

kj::Maybe<kj::String> TransferLimits::Use::enter(kj::StringPtr rule) {
  current = nullptr;
  if (rule.size() == 0) return nullptr;
  for (auto& entered : rules) {
    if (entered.id != rule) continue;
    current = entered.place->gate();
    return nullptr;
  }
  auto gate = transfers.limits.gateOf(rule);
  auto now = transfers.limits.clock().now();
  KJ_IF_MAYBE (bound, gate->refusal(now)) {
    return describeRefusal(*bound, *gate, kj::str("rule '", printable(rule, 64), "' of the host's policy"),
                           "copies and channels");
  }
  current = *gate;
  rules.add(Rule{kj::str(rule), kj::heap<LimitPlace>(kj::mv(gate), now)});
  return nullptr;
}

kj::Promise<void> TransferLimits::Use::pace(uint64_t bytes) {
  LimitGate* gates[MAX_PACED_GATES] = {own.get(), &port.gate(), nullptr};
  size_t count = 2;
  KJ_IF_MAYBE (gate, current) gates[count++] = gate;
  KJ_IF_MAYBE (wait, transfers.limits.pace(kj::arrayPtr(gates, count), bytes)) return kj::mv(*wait);
  return kj::READY_NOW;
}

}  // namespace postern::host
