#include "guest-agent/power/power-service.h"

#include <capnp/message.h>
#include <kj/timer.h>

#include "guest-agent/power/power-operation.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

using Request = schema::PowerRequest;
using Reason = schema::Refusal::Reason;

// The caller, as the agent sees it.
class Observer final : public schema::PowerObserver::Server {
 public:
  struct State {
    enum class Answer { YES, NO, SILENT, FAILS };
    Answer answer = Answer::YES;
    unsigned asked = 0;
    kj::Vector<kj::String> steps;
    kj::Function<void()> onAsked = [] {};

    kj::String all() const { return kj::strArray(steps, ", "); }
  };
  explicit Observer(State& state) : state(state) {}

 protected:
  kj::Promise<void> proceed(ProceedContext context) override {
    ++state.asked;
    state.onAsked();
    switch (state.answer) {
      case State::Answer::YES:
        context.getResults().setProceed(true);
        return kj::READY_NOW;
      case State::Answer::NO:
        return kj::READY_NOW;
      case State::Answer::SILENT:
        return kj::NEVER_DONE;
      case State::Answer::FAILS:
        return KJ_EXCEPTION(DISCONNECTED, "gone");
    }
    KJ_UNREACHABLE;
  }
  kj::Promise<void> progress(ProgressContext context) override {
    auto step = context.getParams().getStep();
    switch (step.which()) {
      case schema::PowerStep::HOOK:
        state.steps.add(kj::str("hook ", step.getHook()));
        break;
      case schema::PowerStep::WAITING:
        state.steps.add(kj::str(step.getWaiting()));
        break;
      case schema::PowerStep::STOPPING:
        state.steps.add(kj::str("stopping"));
        break;
      case schema::PowerStep::REFUSED:
        state.steps.add(kj::str("refused: ", step.getRefused().getDetail()));
        break;
    }
    return kj::READY_NOW;
  }

 private:
  State& state;
};

class HandClock final : public kj::MonotonicClock {
 public:
  kj::TimePoint time = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  kj::TimePoint now() const override { return time; }
};

// One call of GuestCalls.power and what it gave.
struct Call {
  capnp::MallocMessageBuilder request;
  capnp::MallocMessageBuilder results;
  Observer::State observer;
  kj::Promise<kj::Maybe<kj::Own<PowerService::Interest>>> pending = nullptr;
  kj::Maybe<kj::Own<PowerService::Interest>> interest;

  Request::Builder ask() { return request.getRoot<Request>(); }
  schema::GuestCalls::PowerResults::Builder got() { return results.getRoot<schema::GuestCalls::PowerResults>(); }
  kj::String refusal() { return kj::str(got().getRefusal().getDetail()); }
  Reason reason() { return got().getRefusal().getReason(); }
};

struct PowerServiceLab : BrokerLab {
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  HandClock clock;
  kj::Vector<schema::Goodbye> goodbyes;
  kj::Maybe<Denial> denial;
  kj::String decided;
  kj::Own<BrokerClient> agentSide = client();
  kj::Own<PowerService> powerService =
      kj::heap<PowerService>(*agentSide, timer, clock, [this](schema::Goodbye why) { goodbyes.add(why); });

  explicit PowerServiceLab(kj::Duration powerTime = POWER_HAPPENS_WITHIN)
      : BrokerLab(shell("exit 3"), 5 * kj::SECONDS, powerTime) {}

  kj::Own<Call> call(uint64_t id, Request::Action action = Request::Action::SHUTDOWN, uint32_t delay = 0) {
    auto call = kj::heap<Call>();
    auto request = call->request.initRoot<Request>();
    request.setIdHigh(7);
    request.setIdLow(id);
    request.setAction(action);
    request.setDelaySeconds(delay);
    request.setDeadlineMilliseconds(uint64_t(3600) * 1000 * 24);
    call->results.initRoot<schema::GuestCalls::PowerResults>();
    return call;
  }
  // Sends it, and waits for the acceptance or the refusal.
  Call& send(Call& call) {
    begin(call);
    call.interest = wait(kj::mv(call.pending));
    return call;
  }
  void begin(Call& call) {
    Decide decide = [this](kj::StringPtr name) -> kj::Maybe<Denial> {
      decided = kj::str(name);
      return denial.map([](Denial& d) { return Denial{kj::str(d.detail), kj::str(d.rule), kj::str(d.suggestion)}; });
    };
    call.pending = powerService->power("user:alice/group:ops", decide, call.ask().asReader(),
                                       kj::heap<Observer>(call.observer), call.got());
  }
  // Lets everything happen that needs no time, or only real processes.
  void settle() { turn(150 * kj::MILLISECONDS); }
  // The same, however loaded the machine is: until the hooks are over, and until the request is.
  void settle(Call& call) {
    untilStep(call, [](kj::StringPtr step) { return !step.startsWith("hook"); });
  }
  void finish(Call& call) {
    untilStep(call, [](kj::StringPtr step) { return step == "stopping" || step.startsWith("refused"); });
  }
  void advance(kj::Duration time) {
    clock.time += time;
    timer.advanceTo(timer.now() + time);
    turn(10 * kj::MILLISECONDS);
  }
  bool stopped() const { return power.started.size() > 0; }

 private:
  void untilStep(Call& call, kj::Function<bool(kj::StringPtr)> reached) {
    auto& steps = call.observer.steps;
    for (int i = 0; i < 2000 && (steps.size() == 0 || !reached(steps.back())); ++i) turn(10 * kj::MILLISECONDS);
    turn(10 * kj::MILLISECONDS);
  }
};

TEST_CASE("a shutdown is confirmed, runs its hooks, is confirmed again, and is started once; the agent says goodbye") {
  PowerServiceLab lab;
  lab.addHook("10-web", "exit 0");
  lab.addHook("20-db", "exit 0");
  auto call = lab.call(1);
  lab.send(*call);
  CHECK_FALSE(call->got().hasRefusal());
  CHECK(call->got().getOperation() == 1);
  CHECK((lab.decided == "power.shutdown"));
  lab.finish(*call);
  CHECK((call->observer.all() == "hook 10-web, hook 20-db, stopping"));
  CHECK(call->observer.asked == 2);
  CHECK((kj::strArray(lab.power.started, ",") == "shutdown"));
  REQUIRE(lab.goodbyes.size() == 1);
  CHECK(lab.goodbyes[0] == schema::Goodbye::SHUTDOWN);
  CHECK(lab.powerService->state() == schema::Heartbeat::State::STOPPING);
}

// T64
TEST_CASE("a repeated request reports the first one's outcome and starts nothing, for each way it can end") {
  for (bool goes : {true, false}) {
    PowerServiceLab lab;
    if (!goes) lab.addHook("veto", "echo not now; exit 75");
    auto first = lab.call(1);
    lab.send(*first);
    lab.settle(*first);
    auto again = lab.call(1);
    lab.send(*again);
    lab.settle(*again);
    CHECK(again->got().getOperation() == first->got().getOperation());
    CHECK((again->observer.all() == (goes ? "stopping" : "refused: hook veto vetoes it: not now")));
    CHECK(again->observer.asked == 0);
    CHECK(lab.power.started.size() == (goes ? 1 : 0));
    CHECK(lab.goodbyes.size() == (goes ? 1 : 0));
  }
}

TEST_CASE("a repetition while the first one runs joins it, and either of them keeps it going") {
  PowerServiceLab lab;
  auto first = lab.call(1, Request::Action::RESTART, 5);
  lab.send(*first);
  lab.settle(*first);
  auto again = lab.call(1, Request::Action::RESTART, 5);
  lab.send(*again);
  CHECK(again->got().getOperation() == first->got().getOperation());
  lab.settle(*again);
  CHECK((again->observer.all() == "5"));  // where it is
  first->interest = nullptr;
  first->observer.answer = Observer::State::Answer::FAILS;
  for (int i = 0; i < 5; ++i) lab.advance(1 * kj::SECONDS);
  lab.finish(*again);
  CHECK((again->observer.all() == "5, 4, 3, 2, 1, stopping"));
  CHECK((kj::strArray(lab.power.started, ",") == "restart"));
}

TEST_CASE("another request meanwhile is refused as busy and told what runs, also once the guest is stopping") {
  PowerServiceLab lab;
  auto first = lab.call(1, Request::Action::SHUTDOWN, 60);
  lab.send(*first);
  lab.settle(*first);
  auto other = lab.call(2, Request::Action::RESTART);
  lab.send(*other);
  CHECK(other->reason() == Reason::BUSY);
  CHECK((other->refusal() == "a shutdown for user:alice is under way"));
  CHECK(other->interest == nullptr);
  lab.advance(50 * kj::SECONDS);
  for (int i = 0; i < 10; ++i) lab.advance(1 * kj::SECONDS);
  lab.settle(*first);
  CHECK(lab.stopped());
  lab.send(*other);
  CHECK(other->reason() == Reason::BUSY);
  CHECK(lab.power.started.size() == 1);
}

TEST_CASE("the same id for another action is refused, while it runs and after it") {
  PowerServiceLab lab;
  auto first = lab.call(1, Request::Action::SUSPEND, 1);
  lab.send(*first);
  auto other = lab.call(1, Request::Action::SHUTDOWN);
  lab.send(*other);
  CHECK(other->reason() == Reason::INVALID);
  lab.settle(*first);
  lab.advance(1 * kj::SECONDS);
  lab.finish(*first);
  CHECK(lab.stopped());
  auto after = lab.call(1, Request::Action::SHUTDOWN);
  lab.send(*after);
  CHECK(after->reason() == Reason::INVALID);
}

TEST_CASE("the last 64 ids are remembered, and no more") {
  PowerServiceLab lab;
  lab.addHook("veto", "exit 75");
  for (uint64_t id = 1; id <= MAX_REMEMBERED + 1; ++id) {
    auto call = lab.call(id);
    lab.send(*call);
    for (int i = 0; i < 100 && call->observer.steps.size() < 2; ++i) lab.turn(5 * kj::MILLISECONDS);
    CHECK((call->observer.all() == "hook veto, refused: hook veto vetoes it"));
  }
  auto known = lab.call(2);
  lab.send(*known);
  CHECK(known->got().getOperation() == 2);
  auto forgotten = lab.call(1);
  lab.send(*forgotten);
  CHECK(forgotten->got().getOperation() == MAX_REMEMBERED + 2);
}

TEST_CASE("policy refuses with its rule and what to write, and nothing is asked of the broker") {
  PowerServiceLab lab;
  lab.denial = Denial{kj::str("no rule allows it"), kj::str("r1"), kj::str("call = [\"power.*\"]")};
  auto call = lab.call(1);
  lab.send(*call);
  CHECK(call->reason() == Reason::DENIED);
  CHECK((call->refusal() == "no rule allows it"));
  CHECK((call->got().getRefusal().getRule() == "r1"));
  CHECK((call->got().getRefusal().getSuggestion() == "call = [\"power.*\"]"));
  lab.settle();
  CHECK_FALSE(lab.stopped());
  CHECK(call->observer.asked == 0);
}

TEST_CASE("when the broker's own look at the policy refuses, the guest goes on running") {
  PowerServiceLab lab;
  lab.policyRefuses = kj::str("the broker refuses");
  auto call = lab.call(1);
  lab.send(*call);
  lab.settle(*call);
  CHECK((call->observer.all() == "refused: the broker refuses power.shutdown user:alice/group:ops"));
  CHECK(lab.powerService->state() == schema::Heartbeat::State::RUNNING);
  CHECK(lab.goodbyes.size() == 0);
}

TEST_CASE("an inhibitor refuses the request and is named; who ignores inhibitors goes on") {
  PowerServiceLab lab;
  lab.power.inhibitors.add(kj::str("apt (installs a kernel)"));
  auto call = lab.call(1);
  lab.send(*call);
  CHECK(call->reason() == Reason::INHIBITED);
  CHECK((call->refusal() == "held off by apt (installs a kernel)"));
  CHECK(call->observer.asked == 0);
  auto anyway = lab.call(2);
  anyway->ask().setIgnoreInhibitors(true);
  lab.send(*anyway);
  lab.settle(*anyway);
  CHECK((anyway->observer.all() == "stopping"));
}

TEST_CASE("requests that make no sense are refused as invalid") {
  PowerServiceLab lab;
  auto tooLong = lab.call(1, Request::Action::SHUTDOWN, MAX_DELAY_SECONDS + 1);
  auto impatient = lab.call(2, Request::Action::SHUTDOWN, 60);
  impatient->ask().setDeadlineMilliseconds(59999);
  auto talkative = lab.call(3);
  talkative->ask().setMessage(kj::str(kj::repeat('x', MAX_MESSAGE_BYTES + 1)));
  for (auto* call : {tooLong.get(), impatient.get(), talkative.get()}) {
    lab.send(*call);
    CHECK(call->reason() == Reason::INVALID);
  }
  auto unknown = lab.call(4, Request::Action(9));
  lab.send(*unknown);
  CHECK(unknown->reason() == Reason::UNSUPPORTED);
  lab.settle();
  CHECK_FALSE(lab.stopped());
}

TEST_CASE("a caller that says no, fails or is silent for 5 s before the hooks: nothing is run") {
  using enum Observer::State::Answer;
  for (auto answer : {NO, FAILS, SILENT}) {
    PowerServiceLab lab;
    lab.addHook("mark", kj::str("touch ", lab.folder.path("ran")));
    auto call = lab.call(1);
    call->observer.answer = answer;
    lab.send(*call);
    lab.settle(*call);
    if (answer == SILENT) {
      CHECK((call->observer.all() == ""));
      lab.advance(PROCEED_TIME);
      lab.finish(*call);
    }
    CHECK((call->observer.all() == "refused: the caller did not confirm it; it was called off"));
    CHECK_FALSE(exists(lab.folder.path("ran")));
    CHECK_FALSE(lab.stopped());
  }
}

// T63
TEST_CASE("a caller that is gone by the point of no return: the hooks have run, and the guest goes on") {
  PowerServiceLab lab;
  lab.addHook("mark", kj::str("touch ", lab.folder.path("ran")));
  auto call = lab.call(1);
  call->observer.onAsked = [&] {
    if (call->observer.asked == 2) call->observer.answer = Observer::State::Answer::FAILS;
  };
  lab.send(*call);
  lab.settle(*call);
  CHECK(call->observer.asked == 2);
  CHECK(exists(lab.folder.path("ran")));
  CHECK_FALSE(lab.stopped());
  CHECK(lab.powerService->state() == schema::Heartbeat::State::RUNNING);
}

TEST_CASE("dropping the caller's interest calls the delay off, tells the users, and the outcome is remembered") {
  PowerServiceLab lab;
  auto call = lab.call(1, Request::Action::SHUTDOWN, 60);
  call->ask().setMessage("kernel update");
  lab.send(*call);
  lab.settle(*call);
  CHECK((call->observer.all() == "60"));
  call->interest = nullptr;
  lab.turn(150 * kj::MILLISECONDS);
  lab.advance(61 * kj::SECONDS);
  lab.settle();
  CHECK_FALSE(lab.stopped());
  kj::AutoCloseFd told(open(lab.folder.path("told").cStr(), O_RDONLY | O_CLOEXEC));
  CHECK((kj::FdInputStream(told.get()).readAllText() ==
         "postern: this machine will shut down in 60 s, for user:alice: kernel update\n"
         "postern: the shutdown was called off\n"));
  auto again = lab.call(1, Request::Action::SHUTDOWN, 60);
  lab.send(*again);
  lab.settle(*again);
  CHECK((again->observer.all() == "refused: the caller has gone; it was called off"));
}

TEST_CASE(
    "dropping the call while a hook runs kills the hook, and while inhibitors are asked for it is never accepted") {
  PowerServiceLab lab;
  lab.addHook("long", kj::str("echo $$ > ", lab.folder.path("pid"), "; exec sleep 60"));
  auto call = lab.call(1);
  lab.send(*call);
  for (int i = 0; i < 100 && !exists(lab.folder.path("pid")); ++i) lab.turn(10 * kj::MILLISECONDS);
  lab.settle();
  call->interest = nullptr;
  lab.turn(500 * kj::MILLISECONDS);
  CHECK_FALSE(exists(kj::str("/proc/", pidIn(lab.folder.path("pid")), "/exe")));
  auto early = lab.call(2);
  lab.begin(*early);
  early->pending = nullptr;
  lab.settle();
  CHECK(early->observer.asked == 0);
  CHECK_FALSE(lab.stopped());
}

TEST_CASE("the interest may outlive the service") {
  PowerServiceLab lab;
  auto call = lab.call(1, Request::Action::SHUTDOWN, 60);
  lab.send(*call);
  lab.powerService = nullptr;
  call->interest = nullptr;
  lab.settle();
  CHECK_FALSE(lab.stopped());
}

// T63
TEST_CASE("a deadline that passed before the request came, during a delay or while the guest slept: not carried out") {
  PowerServiceLab lab;
  auto late = lab.call(1);
  late->ask().setDeadlineMilliseconds(0);
  lab.send(*late);
  lab.settle(*late);
  CHECK((late->observer.all() == "refused: the caller's deadline has passed"));
  CHECK(late->observer.asked == 0);

  auto slept = lab.call(2, Request::Action::SHUTDOWN, 1);
  slept->ask().setDeadlineMilliseconds(2000);
  lab.send(*slept);
  lab.settle(*slept);
  lab.clock.time += 10 * kj::MINUTES;  // the guest was suspended: only the boot clock has moved
  lab.advance(1 * kj::SECONDS);
  lab.finish(*slept);
  CHECK((slept->observer.all() == "1, refused: the caller's deadline has passed"));
  CHECK_FALSE(lab.stopped());

  auto asked = lab.call(3);
  asked->observer.onAsked = [&] { lab.clock.time += 48 * kj::HOURS; };  // while it lay in the paused guest's queue
  lab.send(*asked);
  lab.settle(*asked);
  CHECK((asked->observer.all() == "refused: the caller's deadline has passed"));
  CHECK_FALSE(lab.stopped());
}

TEST_CASE("a delay reports whole minutes and the last ten seconds, and ends when it should") {
  PowerServiceLab lab;
  auto call = lab.call(1, Request::Action::SHUTDOWN, 130);
  lab.send(*call);
  lab.settle(*call);
  for (int i = 0; i < 129; ++i) lab.advance(1 * kj::SECONDS);
  CHECK_FALSE(lab.stopped());
  CHECK((call->observer.all() == "130, 120, 60, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1"));
  lab.advance(1 * kj::SECONDS);
  lab.finish(*call);
  CHECK(lab.stopped());
}

TEST_CASE("every delay is counted down to zero in steps that get smaller") {
  for (uint32_t seconds : {1u, 9u, 10u, 11u, 59u, 60u, 61u, 119u, 120u, 121u, 86400u}) {
    unsigned steps = 0;
    for (uint32_t left = seconds; left > 0; ++steps) {
      uint32_t next = nextWaitingStep(left);
      REQUIRE(next < left);
      CHECK(left - next <= 60);
      CHECK((next <= 10 || next % 60 == 0));
      left = next;
    }
    CHECK(steps <= 1451);
  }
}

TEST_CASE("a suspend says goodbye, and some seconds later the guest counts as running and takes the next") {
  PowerServiceLab lab;
  auto call = lab.call(1, Request::Action::SUSPEND);
  lab.send(*call);
  lab.settle(*call);
  REQUIRE(lab.goodbyes.size() == 1);
  CHECK(lab.goodbyes[0] == schema::Goodbye::SUSPEND);
  CHECK(lab.powerService->state() == schema::Heartbeat::State::STOPPING);
  lab.advance(SUSPEND_SETTLES);
  CHECK(lab.powerService->state() == schema::Heartbeat::State::RUNNING);
  auto next = lab.call(2, Request::Action::SUSPEND);
  lab.send(*next);
  lab.settle(*next);
  CHECK(lab.power.started.size() == 2);
}

TEST_CASE("a shutdown that was started and never happened is given up after five minutes, and the next is taken") {
  PowerServiceLab lab(0 * kj::SECONDS);  // the broker's own clock is a real one
  auto call = lab.call(1);
  lab.send(*call);
  lab.settle(*call);
  REQUIRE(lab.goodbyes.size() == 1);
  lab.advance(POWER_HAPPENS_WITHIN - 1 * kj::SECONDS);
  CHECK(lab.powerService->state() == schema::Heartbeat::State::STOPPING);
  auto early = lab.call(2, Request::Action::RESTART);
  lab.send(*early);
  CHECK(early->reason() == Reason::BUSY);
  lab.advance(1 * kj::SECONDS);
  CHECK(lab.powerService->state() == schema::Heartbeat::State::RUNNING);
  auto next = lab.call(3, Request::Action::RESTART);
  lab.send(*next);
  lab.settle(*next);
  CHECK((kj::strArray(lab.power.started, ",") == "shutdown,restart"));
  CHECK(lab.powerService->state() == schema::Heartbeat::State::STOPPING);
  // A repetition of the first still hears what became of it, and starts nothing.
  auto again = lab.call(1);
  lab.send(*again);
  lab.settle(*again);
  CHECK((again->observer.all() == "stopping"));
  CHECK(lab.power.started.size() == 2);
}

TEST_CASE("an action that cannot be started is refused with its reason, and may be asked for again under another id") {
  PowerServiceLab lab;
  lab.power.failure = kj::str("this guest's kernel offers no suspend");
  auto call = lab.call(1, Request::Action::SUSPEND);
  lab.send(*call);
  lab.settle(*call);
  CHECK((call->observer.all() == "refused: this guest's kernel offers no suspend"));
  lab.power.failure = nullptr;
  auto next = lab.call(2, Request::Action::SUSPEND);
  lab.send(*next);
  lab.settle(*next);
  CHECK((next->observer.all() == "stopping"));
}

TEST_CASE("a broker that dies on the way refuses the request") {
  PowerServiceLab lab;
  lab.addHook("long", "exec sleep 60");
  auto call = lab.call(1);
  lab.send(*call);
  for (int i = 0; i < 1000 && call->observer.steps.size() == 0; ++i) lab.turn(10 * kj::MILLISECONDS);
  lab.service = nullptr;
  lab.finish(*call);
  CHECK((call->observer.all() == "hook long, refused: the guest's broker failed or is gone"));
}

TEST_CASE("seventeen who wait for one request are one too many") {
  PowerServiceLab lab;
  kj::Vector<kj::Own<Call>> calls;
  for (size_t i = 0; i <= MAX_OBSERVERS; ++i) {
    calls.add(lab.call(1, Request::Action::SHUTDOWN, 60));
    lab.send(*calls.back());
    CHECK(calls.back()->got().hasRefusal() == (i == MAX_OBSERVERS));
  }
  CHECK(calls.back()->reason() == Reason::BUSY);
}

TEST_CASE("what the host writes to the users' terminals is made printable") {
  PowerServiceLab lab;
  auto call = lab.call(1);
  call->ask().setMessage("bye\x1b]0;owned\x07\n$(id)");
  lab.send(*call);
  lab.settle(*call);
  kj::AutoCloseFd told(open(lab.folder.path("told").cStr(), O_RDONLY | O_CLOEXEC));
  CHECK((kj::FdInputStream(told.get()).readAllText() ==
         "postern: this machine will shut down now, for user:alice: bye?]0;owned??$(id)\n"));
}

}  // namespace
}  // namespace postern::guest::test
