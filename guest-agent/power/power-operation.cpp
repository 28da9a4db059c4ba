#include "guest-agent/power/power-operation.h"

#include <kj/debug.h>
#include <spdlog/spdlog.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/power/power-way.h"

namespace postern::guest {

namespace {

using Reason = schema::Refusal::Reason;

kj::Maybe<PowerStop> stopFor(Reason reason, kj::String detail) {
  return PowerStop{reason, kj::mv(detail)};
}

// `next`, unless what is before it stops the operation.
template <typename Next>
kj::Promise<kj::Maybe<PowerStop>> unlessStopped(kj::Promise<kj::Maybe<PowerStop>> before, Next next) {
  return before.then([next = kj::mv(next)](kj::Maybe<PowerStop> stop) mutable -> kj::Promise<kj::Maybe<PowerStop>> {
    if (stop != nullptr) return kj::mv(stop);
    return next();
  });
}

kj::String namesOf(kj::ArrayPtr<const kj::String> holders) {
  return boundedText(kj::strArray(holders, ", "), 900);
}

kj::StringPtr verb(PowerAction action) {
  switch (action) {
    case PowerAction::SHUTDOWN:
      return "shut down"_kj;
    case PowerAction::RESTART:
      return "restart"_kj;
    case PowerAction::SUSPEND:
      return "be suspended"_kj;
  }
  KJ_UNREACHABLE;
}

}  // namespace

void PowerStop::fill(schema::Refusal::Builder refusal) const {
  refusal.setReason(reason);
  refusal.setDetail(detail);
}

kj::String PowerOrder::callerName() const {
  return kj::heapString(caller.slice(0, caller.findFirst('/').orDefault(caller.size())));
}

uint32_t nextWaitingStep(uint32_t secondsLeft) {
  if (secondsLeft > 60) return (secondsLeft - 1) / 60 * 60;
  if (secondsLeft > 10) return 10;
  return secondsLeft == 0 ? 0 : secondsLeft - 1;
}

void tellObserver(schema::PowerObserver::Client& observer, kj::Function<void(schema::PowerStep::Builder)>& step) {
  auto request = observer.progressRequest();
  step(request.initStep());
  // An observer that is gone is found out by proceed().
  request.send().ignoreResult().detach([](kj::Exception&&) {});
}

class PowerOperation::Waiting final : public PowerService::Interest {
 public:
  Waiting(PowerOperation& operation, schema::PowerObserver::Client observer)
      : observer(kj::mv(observer)), operation(operation) {
    operation.waiting.add(this);
  }
  ~Waiting() noexcept(false) {
    KJ_IF_MAYBE (still, operation) still->leave(*this);
  }
  KJ_DISALLOW_COPY(Waiting);

  schema::PowerObserver::Client observer;

 private:
  friend class PowerOperation;
  kj::Maybe<PowerOperation&> operation;
};

PowerOperation::PowerOperation(World world, uint64_t number, PowerOrder order)
    : order(kj::mv(order)), number(number), world(world) {}

PowerOperation::~PowerOperation() noexcept(false) {
  for (auto* one : waiting) one->operation = nullptr;
}

kj::Maybe<kj::Own<PowerService::Interest>> PowerOperation::join(schema::PowerObserver::Client observer) {
  if (waiting.size() >= MAX_OBSERVERS) return nullptr;
  if (stepped) tellObserver(observer, lastStep);
  return kj::Own<PowerService::Interest>(kj::heap<Waiting>(*this, kj::mv(observer)));
}

void PowerOperation::leave(Waiting& one) {
  kj::Vector<Waiting*> still;
  for (auto* other : waiting) {
    if (other != &one) still.add(other);
  }
  waiting = kj::mv(still);
  if (waiting.empty() && abandoned.get() != nullptr) abandoned->fulfill();
}

kj::Promise<kj::Maybe<PowerStop>> PowerOperation::whenAccepted() {
  if (acceptance == Acceptance::ACCEPTED) return kj::Maybe<PowerStop>(nullptr);
  auto accepted = kj::newPromiseAndFulfiller<kj::Maybe<PowerStop>>();
  awaitingAcceptance.add(kj::mv(accepted.fulfiller));
  return kj::mv(accepted.promise);
}

void PowerOperation::settle(kj::Maybe<PowerStop> refused) {
  acceptance = refused == nullptr ? Acceptance::ACCEPTED : Acceptance::REFUSED;
  for (auto& one : awaitingAcceptance) {
    one->fulfill(refused.map([](PowerStop& stop) { return PowerStop{stop.reason, kj::str(stop.detail)}; }));
  }
  awaitingAcceptance.clear();
}

kj::Promise<void> PowerOperation::run(kj::Function<void()> committing) {
  auto whenAbandoned = kj::newPromiseAndFulfiller<void>();
  abandoned = kj::mv(whenAbandoned.fulfiller);
  return kj::evalNow([&] { return prepare(); })
      .exclusiveJoin(whenAbandoned.promise.then(
          [] { return stopFor(Reason::TOO_LATE, kj::str("the caller has gone; it was called off")); }))
      .then([this, committing = kj::mv(committing)](kj::Maybe<PowerStop> stopped) mutable -> Step {
        if (stopped != nullptr) return kj::mv(stopped);
        committing();
        return commit();
      })
      .catch_([](kj::Exception&& exception) {
        spdlog::error("power-failed: {}", exception.getDescription().cStr());
        return stopFor(Reason::FAILED, kj::str("the guest's broker failed or is gone"));
      })
      .then([this](kj::Maybe<PowerStop> stopped) {
        stop = kj::mv(stopped);
        if (stop != nullptr && usersTold) {
          world.broker.tellUsers(kj::str("postern: the ", actionName(order.action), " was called off"))
              .detach([](kj::Exception&&) {});
        }
      });
}

PowerOperation::Step PowerOperation::prepare() {
  auto step = unlessStopped(checkInhibitors(), [this] { return accept(); });
  step = unlessStopped(kj::mv(step), [this] { return mayProceed(); });
  step = unlessStopped(kj::mv(step), [this] { return tellUsers(); });
  step = unlessStopped(kj::mv(step), [this] {
    return world.broker.hooks(order.action).then([this](kj::Array<kj::String> names) {
      return runHooks(kj::mv(names), 0);
    });
  });
  step = unlessStopped(kj::mv(step), [this] { return wait(order.delaySeconds); });
  return unlessStopped(kj::mv(step), [this] { return mayProceed(); });
}

PowerOperation::Step PowerOperation::checkInhibitors() {
  if (order.ignoreInhibitors) return kj::Maybe<PowerStop>(nullptr);
  return world.broker.inhibitors(order.action).then([](kj::Array<kj::String> holders) -> kj::Maybe<PowerStop> {
    if (holders.size() == 0) return nullptr;
    return stopFor(Reason::INHIBITED, kj::str("held off by ", namesOf(holders)));
  });
}

PowerOperation::Step PowerOperation::accept() {
  settle(nullptr);
  return kj::Maybe<PowerStop>(nullptr);
}

// T63
PowerOperation::Step PowerOperation::mayProceed() {
  if (world.bootClock.now() >= order.deadline) {
    return stopFor(Reason::TOO_LATE, kj::str("the caller's deadline has passed"));
  }
  return askObservers().then([this](bool proceed) -> kj::Maybe<PowerStop> {
    if (!proceed) return stopFor(Reason::TOO_LATE, kj::str("the caller did not confirm it; it was called off"));
    // A guest that was paused meanwhile.
    if (world.bootClock.now() >= order.deadline) {
      return stopFor(Reason::TOO_LATE, kj::str("the caller's deadline has passed"));
    }
    return nullptr;
  });
}

kj::Promise<bool> PowerOperation::askObservers() {
  auto anyone = kj::newPromiseAndFulfiller<bool>();
  kj::Vector<kj::Promise<void>> all;
  for (auto* one : waiting) {
    all.add(one->observer.proceedRequest()
                .send()
                .then([](auto response) { return response.getProceed(); })
                .exclusiveJoin(world.timer.afterDelay(PROCEED_TIME).then([] { return false; }))
                .catch_([](kj::Exception&&) { return false; })
                .then([&fulfiller = *anyone.fulfiller](bool proceed) {
                  if (proceed) fulfiller.fulfill(true);
                })
                .eagerlyEvaluate(nullptr));
  }
  auto nobody = kj::joinPromises(all.releaseAsArray()).then([] { return false; });
  return anyone.promise.exclusiveJoin(kj::mv(nobody)).attach(kj::mv(anyone.fulfiller));
}

PowerOperation::Step PowerOperation::tellUsers() {
  if (order.message.size() == 0 && order.delaySeconds == 0) return kj::Maybe<PowerStop>(nullptr);
  auto when = order.delaySeconds == 0 ? kj::str("now") : kj::str("in ", order.delaySeconds, " s");
  auto colon = order.message.size() == 0 ? ""_kj : ": "_kj;
  usersTold = true;
  return world.broker
      .tellUsers(kj::str("postern: this machine will ", verb(order.action), " ", when, ", for ", order.callerName(),
                         colon, order.message))
      .then([] { return kj::Maybe<PowerStop>(nullptr); });
}

PowerOperation::Step PowerOperation::runHooks(kj::Array<kj::String> names, size_t next) {
  if (next == names.size()) return kj::Maybe<PowerStop>(nullptr);
  if (world.bootClock.now() >= order.deadline) {
    return stopFor(Reason::TOO_LATE, kj::str("the caller's deadline has passed before hook ", names[next]));
  }
  tell([name = kj::str(names[next])](schema::PowerStep::Builder step) { step.setHook(name); });
  return world.broker.runHook(order.action, names[next], order.caller)
      .then([this, names = kj::mv(names), next](kj::Maybe<BrokerRefusal> veto) mutable -> Step {
        KJ_IF_MAYBE (refusal, veto) return stopFor(Reason::FAILED, boundedText(refusal->text, 900));
        return runHooks(kj::mv(names), next + 1);
      });
}

PowerOperation::Step PowerOperation::wait(uint32_t secondsLeft) {
  if (secondsLeft == 0) return kj::Maybe<PowerStop>(nullptr);
  tell([secondsLeft](schema::PowerStep::Builder step) { step.setWaiting(secondsLeft); });
  uint32_t next = nextWaitingStep(secondsLeft);
  return world.timer.afterDelay(int64_t(secondsLeft - next) * kj::SECONDS).then([this, next] { return wait(next); });
}

PowerOperation::Step PowerOperation::commit() {
  return world.broker.power(order.action, order.caller)
      .then([](kj::Maybe<BrokerRefusal> refused) -> kj::Maybe<PowerStop> {
        KJ_IF_MAYBE (refusal, refused) return stopFor(Reason::FAILED, boundedText(refusal->text, 900));
        return nullptr;
      });
}

void PowerOperation::tell(kj::Function<void(schema::PowerStep::Builder)> step) {
  lastStep = kj::mv(step);
  stepped = true;
  for (auto* one : waiting) tellObserver(one->observer, lastStep);
}

PowerOutcome PowerOperation::outcome() const {
  kj::Maybe<PowerStop> copy;
  KJ_IF_MAYBE (one, stop) copy = PowerStop{one->reason, kj::str(one->detail)};
  return {order.idHigh, order.idLow, order.action, number, kj::mv(copy)};
}

void PowerOperation::tellOutcome() {
  // Who still waits for the acceptance hears it there.
  if (acceptance == Acceptance::PENDING) {
    auto result = outcome();
    settle(kj::mv(result.stop));
    return;
  }
  tell([result = outcome()](schema::PowerStep::Builder step) mutable {
    KJ_IF_MAYBE (one, result.stop) {
      one->fill(step.initRefused());
    } else {
      step.setStopping();
    }
  });
}

}  // namespace postern::guest
