#include "guest-agent/power/power-service.h"

#include <kj/debug.h>
#include <spdlog/spdlog.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/power/power-operation.h"
#include "guest-agent/power/power-way.h"

namespace postern::guest {

namespace {

using Reason = schema::Refusal::Reason;
using Results = schema::GuestCalls::PowerResults::Builder;
using Interested = kj::Maybe<kj::Own<PowerService::Interest>>;

// A caller cannot wait longer than the longest delay and an hour of hooks.
constexpr uint64_t MAX_DEADLINE_MILLISECONDS = uint64_t(MAX_DELAY_SECONDS + 3600) * 1000;

Interested refuse(Results results, Reason reason, kj::StringPtr detail) {
  auto refusal = results.initRefusal();
  refusal.setReason(reason);
  refusal.setDetail(detail);
  return nullptr;
}

kj::Maybe<PowerAction> actionOf(schema::PowerRequest::Action untrusted) {
  switch (untrusted) {
    case schema::PowerRequest::Action::SHUTDOWN:
      return PowerAction::SHUTDOWN;
    case schema::PowerRequest::Action::RESTART:
      return PowerAction::RESTART;
    case schema::PowerRequest::Action::SUSPEND:
      return PowerAction::SUSPEND;
    default:
      return nullptr;
  }
}

schema::Goodbye goodbyeOf(PowerAction action) {
  switch (action) {
    case PowerAction::SHUTDOWN:
      return schema::Goodbye::SHUTDOWN;
    case PowerAction::RESTART:
      return schema::Goodbye::RESTART;
    case PowerAction::SUSPEND:
      return schema::Goodbye::SUSPEND;
  }
  KJ_UNREACHABLE;
}

// What makes no sense in a request; null if nothing.
kj::Maybe<kj::String> problemWith(schema::PowerRequest::Reader untrusted) {
  if (untrusted.getDelaySeconds() > MAX_DELAY_SECONDS) {
    return kj::str("a delay of more than ", MAX_DELAY_SECONDS, " s");
  }
  if (untrusted.getMessage().size() > MAX_MESSAGE_BYTES) {
    return kj::str("a message of more than ", MAX_MESSAGE_BYTES, " bytes");
  }
  if (untrusted.getDeadlineMilliseconds() / 1000 < untrusted.getDelaySeconds()) {
    return kj::str("the delay is longer than the caller waits");
  }
  return nullptr;
}

// Of a request that is over already.
class NoInterest final : public PowerService::Interest {};

}  // namespace

PowerService::PowerService(BrokerClient& broker, kj::Timer& timer, const kj::MonotonicClock& bootClock,
                           kj::Function<void(schema::Goodbye)> aboutToStop)
    : broker(broker), timer(timer), bootClock(bootClock), aboutToStop(kj::mv(aboutToStop)), tasks(*this) {}
PowerService::~PowerService() noexcept(false) {}

schema::Heartbeat::State PowerService::state() const {
  return stopping ? schema::Heartbeat::State::STOPPING : schema::Heartbeat::State::RUNNING;
}

kj::Promise<Interested> PowerService::power(kj::StringPtr caller, Decide& decide, schema::PowerRequest::Reader request,
                                            schema::PowerObserver::Client observer, Results results) {
  auto known = actionOf(request.getAction());
  if (known == nullptr) return refuse(results, Reason::UNSUPPORTED, "this agent does not know the action");
  auto action = KJ_ASSERT_NONNULL(known);
  KJ_IF_MAYBE (denial, decide(callName(action))) {
    refuse(results, Reason::DENIED, denial->detail);
    results.getRefusal().setRule(denial->rule);
    results.getRefusal().setSuggestion(denial->suggestion);
    return Interested(nullptr);
  }
  KJ_IF_MAYBE (problem, problemWith(request)) return refuse(results, Reason::INVALID, *problem);
  KJ_IF_MAYBE (answered, answerAtOnce(request, observer, results)) return kj::mv(*answered);
  auto waits = kj::min(request.getDeadlineMilliseconds(), MAX_DEADLINE_MILLISECONDS);
  PowerOrder order{request.getIdHigh(),
                   request.getIdLow(),
                   action,
                   kj::str(caller),
                   request.getDelaySeconds(),
                   boundedText(request.getMessage(), MAX_MESSAGE_BYTES),
                   bootClock.now() + int64_t(waits) * kj::MILLISECONDS,
                   request.getIgnoreInhibitors()};
  auto operation =
      kj::heap<PowerOperation>(PowerOperation::World{broker, timer, bootClock}, ++lastOperation, kj::mv(order));
  auto& borrowed = *operation;
  auto joined = join(borrowed, kj::mv(observer), results);
  begin(kj::mv(operation));
  return joined;
}

// T64
kj::Maybe<kj::Promise<Interested>> PowerService::answerAtOnce(schema::PowerRequest::Reader request,
                                                              schema::PowerObserver::Client& observer,
                                                              Results results) {
  using Answer = kj::Promise<Interested>;
  auto sameAction = [&](PowerAction action) { return actionOf(request.getAction()).orDefault(action) == action; };
  auto otherAction = "this id was used for another action"_kj;
  for (auto& outcome : remembered) {
    if (outcome->idHigh != request.getIdHigh() || outcome->idLow != request.getIdLow()) continue;
    if (!sameAction(outcome->action)) return Answer(refuse(results, Reason::INVALID, otherAction));
    results.setOperation(outcome->operation);
    kj::Function<void(schema::PowerStep::Builder)> step = [&](schema::PowerStep::Builder builder) {
      KJ_IF_MAYBE (stop, outcome->stop) {
        stop->fill(builder.initRefused());
      } else {
        builder.setStopping();
      }
    };
    tellObserver(observer, step);
    return Answer(Interested(kj::heap<NoInterest>()));
  }
  KJ_IF_MAYBE (running, current) {
    if (!running->order.hasId(request)) {
      return Answer(refuse(
          results, Reason::BUSY,
          kj::str("a ", actionName(running->order.action), " for ", running->order.callerName(), " is under way")));
    }
    if (!sameAction(running->order.action)) return Answer(refuse(results, Reason::INVALID, otherAction));
    return join(*running, observer, results);
  }
  if (stopping) return Answer(refuse(results, Reason::BUSY, "this guest is stopping"));
  return nullptr;
}

kj::Promise<Interested> PowerService::join(PowerOperation& operation, schema::PowerObserver::Client observer,
                                           Results results) {
  auto joined = operation.join(kj::mv(observer));
  if (joined == nullptr) return refuse(results, Reason::BUSY, "too many wait for this request");
  results.setOperation(operation.number);
  return operation.whenAccepted().then(
      [results, interest = kj::mv(KJ_ASSERT_NONNULL(joined))](kj::Maybe<PowerStop> refused) mutable -> Interested {
        KJ_IF_MAYBE (stop, refused) return refuse(results, stop->reason, stop->detail);
        return kj::mv(interest);
      });
}

void PowerService::begin(kj::Own<PowerOperation> operation) {
  auto& borrowed = *operation;
  current = borrowed;
  tasks.add(
      borrowed.run([this] { stopping = true; }).then([this, &borrowed] { ended(borrowed); }).attach(kj::mv(operation)));
}

void PowerService::ended(PowerOperation& operation) {
  current = nullptr;
  auto outcome = kj::heap(operation.outcome());
  bool done = outcome->stop == nullptr;
  spdlog::info("power-ended action={} caller={} outcome={}", actionName(outcome->action).cStr(),
               operation.order.callerName().cStr(), done ? "started" : KJ_ASSERT_NONNULL(outcome->stop).detail.cStr());
  remembered.push_back(kj::mv(outcome));
  if (remembered.size() > MAX_REMEMBERED) remembered.pop_front();
  operation.tellOutcome();
  stopping = done;
  if (!done) return;
  auto action = operation.order.action;
  if (action == PowerAction::SUSPEND) {
    tasks.add(timer.afterDelay(SUSPEND_SETTLES).then([this] { stopping = false; }));
  } else {
    tasks.add(timer.afterDelay(POWER_HAPPENS_WITHIN).then([this, action] {
      spdlog::warn(
          "power-did-not-happen action={}: it was started {} s ago, and this system still runs; another "
          "request is taken",
          actionName(action).cStr(), POWER_HAPPENS_WITHIN / kj::SECONDS);
      stopping = false;
    }));
  }
  aboutToStop(goodbyeOf(action));
}

void PowerService::taskFailed(kj::Exception&& exception) {
  spdlog::error("power-failed: {}", exception.getDescription().cStr());
}

}  // namespace postern::guest
