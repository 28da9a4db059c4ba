#include "host/session/power-relay.h"

#include <kj/debug.h>

#include "transport/printable.h"

namespace postern::host {

namespace {

namespace wire = postern::schema;

// Of one operation, to the observer: an honest one has a handful and its countdown.
constexpr unsigned MAX_TOLD_STEPS = 64;

class PowerRelay final : public wire::PowerObserver::Server {
 public:
  PowerRelay(wire::PowerObserver::Client caller, unsigned maxSteps, kj::Function<void(kj::StringPtr)> observe)
      : caller(kj::mv(caller)), stepsLeft(maxSteps), observe(kj::mv(observe)) {}

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
        tell(kj::str("hook ", step.getHook().asReader()));
        break;
      case wire::PowerStep::WAITING:
        step.setWaiting(untrusted.getWaiting());
        tell(kj::str(untrusted.getWaiting(), " s left"));
        break;
      case wire::PowerStep::STOPPING:
        step.setStopping();
        tell("the guest's system is going down");
        break;
      case wire::PowerStep::REFUSED: {
        auto from = untrusted.getRefused();
        auto refused = step.initRefused();
        refused.setReason(from.getReason());
        refused.setDetail(printable(from.getDetail(), 1024));
        refused.setRule(printable(from.getRule(), 64));
        tell(kj::str("the guest does not go down: ", refused.getDetail().asReader()));
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
  kj::Function<void(kj::StringPtr)> observe;
  unsigned tellingsLeft = MAX_TOLD_STEPS;

  void tell(kj::StringPtr step) {
    if (tellingsLeft == 0) return;
    --tellingsLeft;
    observe(step);
  }
};

}  // namespace

wire::PowerObserver::Client newPowerRelay(wire::PowerObserver::Client caller, unsigned maxSteps,
                                          kj::Function<void(kj::StringPtr)> observe) {
  return kj::heap<PowerRelay>(kj::mv(caller), maxSteps, kj::mv(observe));
}

}  // namespace postern::host
