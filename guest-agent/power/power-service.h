#pragma once
// PowerService: GuestCalls.power on the agent's side, for all callers and links of the agent. Guarantees:
//
// - A request runs at most once, by its 128-bit id: a repetition joins the one that runs, or is told how it ended. The
//   last MAX_REMEMBERED ids are known.
// - One at a time: another id meanwhile is refused as busy, and told what runs.
// - It is given up at any time before the point of no return when everybody who waits for it has gone, when nobody says
//   proceed() within PROCEED_TIME, or when the caller's deadline has passed on a clock that counts suspended time, too.
// - It ends in exactly one step `stopping` or `refused` to every observer.
// - One that was started and never happened is given up POWER_HAPPENS_WITHIN later: the log says so, and the next is
//   taken.
//
// The order: policy; inhibitors; accepted; proceed(); users are told; hooks; the delay; deadline and proceed() again;
// broker.power(), which decides once more; `stopping`; aboutToStop, upon which the agent says goodbye.
//
// Of what comes from the host: text is bounded and made printable here, numbers are bounded here.

#include <kj/async.h>
#include <kj/timer.h>

#include <deque>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/verdict.h"
#include "protocol/guest.capnp.h"

namespace postern::guest {

// Enough for every host program that repeats itself after a reconnect; a request is a person's or a scheduler's act.
constexpr size_t MAX_REMEMBERED = 64;
constexpr auto PROCEED_TIME = 5 * kj::SECONDS;
constexpr uint32_t MAX_DELAY_SECONDS = 86400;
constexpr size_t MAX_MESSAGE_BYTES = 512;
// Those who wait for one request: its caller, again after each reconnect. More are refused.
constexpr size_t MAX_OBSERVERS = 16;

// After a suspend was started: how long, in time that the guest runs, until it counts as over.
constexpr auto SUSPEND_SETTLES = 5 * kj::SECONDS;

class PowerOperation;
struct PowerOutcome;

class PowerService final : private kj::TaskSet::ErrorHandler {
 public:
  // `bootClock` goes on while the guest is suspended (CLOCK_BOOTTIME). `aboutToStop` is called once the system's
  // shutdown or suspend has been started, after the observers' `stopping` was sent. All outlive this.
  PowerService(BrokerClient& broker, kj::Timer& timer, const kj::MonotonicClock& bootClock,
               kj::Function<void(schema::Goodbye)> aboutToStop);
  ~PowerService() noexcept(false);
  KJ_DISALLOW_COPY(PowerService);

  // Somebody waits for the operation. Hold it as long as the caller's GuestCalls lives: when the last one is destroyed
  // before the point of no return, the request is given up. May outlive the service.
  class Interest {
   public:
    virtual ~Interest() noexcept(false) {}
  };

  // Serves one call: sets `results`' operation, or its refusal and gives null. `caller` is callerText()'s. `decide` is
  // asked for "power.shutdown" and so on before this returns. `request` and `results` outlive the promise; dropping it
  // is as dropping the interest.
  kj::Promise<kj::Maybe<kj::Own<Interest>>> power(kj::StringPtr caller, Decide& decide,
                                                  schema::PowerRequest::Reader request,
                                                  schema::PowerObserver::Client observer,
                                                  schema::GuestCalls::PowerResults::Builder results);

  // For heartbeats: STOPPING from the point of no return on, until a suspend is over.
  schema::Heartbeat::State state() const;

 private:
  BrokerClient& broker;
  kj::Timer& timer;
  const kj::MonotonicClock& bootClock;
  kj::Function<void(schema::Goodbye)> aboutToStop;
  uint64_t lastOperation = 0;
  bool stopping = false;
  std::deque<kj::Own<PowerOutcome>> remembered;  // oldest first
  kj::Maybe<PowerOperation&> current;
  kj::TaskSet tasks;  // owns the current one

  // What becomes of a request whose id is known, or that comes while another runs; null: it is the first of its kind.
  kj::Maybe<kj::Promise<kj::Maybe<kj::Own<Interest>>>> answerAtOnce(schema::PowerRequest::Reader request,
                                                                    schema::PowerObserver::Client& observer,
                                                                    schema::GuestCalls::PowerResults::Builder results);
  kj::Promise<kj::Maybe<kj::Own<Interest>>> join(PowerOperation& operation, schema::PowerObserver::Client observer,
                                                 schema::GuestCalls::PowerResults::Builder results);
  void begin(kj::Own<PowerOperation> operation);
  void ended(PowerOperation& operation);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
