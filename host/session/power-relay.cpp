#include "host/session/power-relay.h"

#include <kj/debug.h>

#include "transport/printable.h"

namespace postern::host {

namespace {

namespace wire = postern::schema;

class PowerRelay final : public wire::PowerObserver::Server {
 public:
  PowerRelay(wire::PowerObserver::Client caller, unsigned maxSteps) : caller(kj::mv(caller)), stepsLeft(maxSteps) {}

  kj::Promise<void> proceed(ProceedContext context) override {
    if (stepsLeft == 0) return kj::READY_NOW;
    --stepsLeft;
    return caller.proceedRequest().send().then(
        [context](auto answer) mutable { context.getResults().setProceed(answer.getProceed()); });
  }

  kj::Promise<void> progress(ProgressContext context) override {
    if (stepsLeft == 0) return kj::READY_NOW;
    --stepsLeft;
    auto untrusted = context.getParams().getStep();
    auto request = caller.progressRequest();
    auto step = request.initStep();
    switch (untrusted.which()) {
      case wire::PowerStep::HOOK:
        step.setHook(printable(untrusted.getHook(), 64));
        break;
      case wire::PowerStep::WAITING:
        step.setWaiting(untrusted.getWaiting());
        break;
      case wire::PowerStep::STOPPING:
        step.setStopping();
        break;
      case wire::PowerStep::REFUSED: {
        auto from = untrusted.getRefused();
        auto refused = step.initRefused();
        refused.setReason(from.getReason());
        refused.setDetail(printable(from.getDetail(), 1024));
        refused.setRule(printable(from.getRule(), 64));
        break;
      }
      default:
        return kj::READY_NOW;  // of a later version
    }
    return request.send().ignoreResult();
  }

 private:
  wire::PowerObserver::Client caller;
  unsigned stepsLeft;
};

}  // namespace

wire::PowerObserver::Client newPowerRelay(wire::PowerObserver::Client caller, unsigned maxSteps) {
  return kj::heap<PowerRelay>(kj::mv(caller), maxSteps);
}

}  // namespace postern::host
