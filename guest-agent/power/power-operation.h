#pragma once
// PowerOperation: one power request on its way, from its acceptance to its end (power-service.h says by which steps),
// and those who wait for it.

#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "guest-agent/power/power-service.h"

namespace postern::guest {

// Why an operation ends without having been carried out.
struct PowerStop {
  schema::Refusal::Reason reason;
  kj::String detail;

  void fill(schema::Refusal::Builder refusal) const;
};

struct PowerOrder {
  uint64_t idHigh;
  uint64_t idLow;
  PowerAction action;
  kj::String caller;  // callerText()'s
  uint32_t delaySeconds;
  kj::String message;      // bounded and printable
  kj::TimePoint deadline;  // on the boot clock
  bool ignoreInhibitors;

  bool hasId(schema::PowerRequest::Reader request) const {
    return idHigh == request.getIdHigh() && idLow == request.getIdLow();
  }
  kj::String callerName() const;  // without groups
};

// How one ended; what is remembered of it.
struct PowerOutcome {
  uint64_t idHigh;
  uint64_t idLow;
  PowerAction action;
  uint64_t operation;
  kj::Maybe<PowerStop> stop;  // null: it was carried out
};

// The next number of seconds left, below this one, that observers are told: whole minutes, then 10, 9, ... 0.
uint32_t nextWaitingStep(uint32_t secondsLeft);

class PowerOperation {
 public:
  struct World {
    BrokerClient& broker;
    kj::Timer& timer;
    const kj::MonotonicClock& bootClock;
  };
  PowerOperation(World world, uint64_t number, PowerOrder order);
  ~PowerOperation() noexcept(false);
  KJ_DISALLOW_COPY(PowerOperation);

  // Null if too many wait already. The observer is told the step that it is at.
  kj::Maybe<kj::Own<PowerService::Interest>> join(schema::PowerObserver::Client observer);
  // Resolves at the acceptance: null, or why it was not accepted.
  kj::Promise<kj::Maybe<PowerStop>> whenAccepted();

  // From its beginning to its end; calls `committing` at the point of no return. Does not fail.
  kj::Promise<void> run(kj::Function<void()> committing);

  const PowerOrder order;
  const uint64_t number;
  // Once run() has resolved.
  PowerOutcome outcome() const;
  // To all observers, and nothing is waited for.
  void tellOutcome();

 private:
  using Step = kj::Promise<kj::Maybe<PowerStop>>;
  class Waiting;
  enum class Acceptance { PENDING, ACCEPTED, REFUSED };

  World world;
  kj::Vector<Waiting*> waiting;
  Acceptance acceptance = Acceptance::PENDING;
  kj::Vector<kj::Own<kj::PromiseFulfiller<kj::Maybe<PowerStop>>>> awaitingAcceptance;
  kj::Own<kj::PromiseFulfiller<void>> abandoned;
  kj::Maybe<PowerStop> stop;
  bool usersTold = false;
  kj::Function<void(schema::PowerStep::Builder)> lastStep = [](schema::PowerStep::Builder) {};
  bool stepped = false;

  Step checkInhibitors();
  Step accept();
  Step mayProceed();  // the deadline, and proceed()
  Step tellUsers();
  Step runHooks(kj::Array<kj::String> names, size_t next);
  Step wait(uint32_t secondsLeft);
  Step prepare();
  Step commit();
  kj::Promise<bool> askObservers();

  void leave(Waiting& one);
  void tell(kj::Function<void(schema::PowerStep::Builder)> step);
  void settle(kj::Maybe<PowerStop> refused);
};

// One call of PowerObserver.progress, to its end or failure; nobody waits for it.
void tellObserver(schema::PowerObserver::Client& observer, kj::Function<void(schema::PowerStep::Builder)>& step);

}  // namespace postern::guest
