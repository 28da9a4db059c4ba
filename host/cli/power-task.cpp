#include "host/cli/power-task.h"

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

using Action = schema::PowerRequest::Action;
using client::FailureKind;

kj::StringPtr callOf(Action action) {
  switch (action) {
    case Action::SHUTDOWN:
      return "power.shutdown"_kj;
    case Action::RESTART:
      return "power.restart"_kj;
    case Action::SUSPEND:
      return "power.suspend"_kj;
  }
  KJ_UNREACHABLE;
}

// What QEMU may do instead: nobody has said no.
bool mayBeForced(FailureKind kind) {
  return kind == FailureKind::NOT_CONNECTED || kind == FailureKind::TIMED_OUT || kind == FailureKind::FAILED;
}

}  // namespace

class PowerTask::Observer final : public schema::PowerObserver::Server {
 public:
  explicit Observer(PowerTask& task) : task(task) {}

  kj::Promise<void> proceed(ProceedContext context) override {
    context.getResults().setProceed(task.mayProceed());
    return kj::READY_NOW;
  }
  kj::Promise<void> progress(ProgressContext context) override {
    task.progress(context.getParams().getStep());
    return kj::READY_NOW;
  }

 private:
  PowerTask& task;
};

PowerTask::PowerTask(Invocation& run, const PowerArguments& arguments, kj::StringPtr vm, kj::Duration limit)
    : run(run),
      arguments(arguments),
      vm(vm),
      limit(limit),
      began(run.world.now()),
      end(kj::newPromiseAndFulfiller<void>()),
      deadline(nullptr),
      opening(nullptr),
      force(nullptr),
      request(nullptr),
      gone(nullptr),
      off(nullptr) {}

PowerTask::~PowerTask() noexcept(false) {}

kj::Promise<void> PowerTask::go() {
  auto& timer = run.world.timer();
  deadline = timer.afterDelay(limit).then([this]() { late(); }).eagerlyEvaluate(nullptr);
  KJ_IF_MAYBE (after, arguments.forceAfter) {
    force =
        timer.afterDelay(*after).then([this]() { return forceByQemu(); }).eagerlyEvaluate([this](kj::Exception&& e) {
          giveUp(client::failureOf(e, "posternd"));
        });
  }
  opening = run.control()
                .openVm(vm, {callOf(arguments.action)})
                .then([this](client::Outcome<kj::Own<client::VmClient>> outcome) {
                  KJ_SWITCH_ONEOF(outcome) {
                    KJ_CASE_ONEOF(failure, client::Failure) {
                      fail(kj::mv(failure));
                    }
                    KJ_CASE_ONEOF(vmClient, kj::Own<client::VmClient>) {
                      begin(kj::mv(vmClient));
                    }
                  }
                })
                .eagerlyEvaluate([this](kj::Exception&& e) { fail(client::failureOf(e, "posternd")); });
  return kj::mv(end.promise);
}

void PowerTask::begin(kj::Own<client::VmClient> vmClient) {
  session = kj::mv(vmClient);
  watchQemu();
  watchForGone();  // before the guest is asked, so that nothing is missed
  ask();
}

void PowerTask::ask() {
  auto call = session->calls().powerRequest();
  auto wanted = call.initRequest();
  wanted.setAction(arguments.action);
  uint64_t id[2];
  run.world.random().fill(kj::arrayPtr(id, 2).asBytes());
  wanted.setIdHigh(id[0]);
  wanted.setIdLow(id[1]);
  wanted.setDelaySeconds(static_cast<uint32_t>(arguments.delay / kj::SECONDS));
  wanted.setMessage(arguments.message);
  wanted.setIgnoreInhibitors(arguments.ignoreInhibitors);
  auto patience = kj::min(limit, arguments.forceAfter.orDefault(limit));
  wanted.setDeadlineMilliseconds(static_cast<uint64_t>(patience / kj::MILLISECONDS));
  call.setObserver(kj::heap<Observer>(*this));
  request = call.send()
                .then([this](capnp::Response<host::schema::VmCalls::PowerResults> response) {
                  if (response.hasFailure()) {
                    fail(client::failureOf(response.getFailure()));
                  } else {
                    accept();
                  }
                })
                .eagerlyEvaluate([this](kj::Exception&& e) { fail(client::failureOf(e, "its session")); });
}

void PowerTask::watchForGone() {
  auto call = session->calls().whenGoneRequest();
  call.setReset(arguments.action == Action::RESTART);
  gone = call.send()
             .then([this](capnp::Response<host::schema::VmCalls::WhenGoneResults> response) {
               if (!response.hasFailure()) return wentAway(response.getHow());
               // Without --wait nobody has asked; what the guest says decides.
               if (arguments.wait) fail(client::failureOf(response.getFailure()));
             })
             .eagerlyEvaluate([this](kj::Exception&& e) {
               if (arguments.wait) fail(client::failureOf(e, "its session"));
             });
}

void PowerTask::watchQemu() {
  if (!arguments.wait || arguments.action == Action::SUSPEND) return;
  qemuDone = false;
  auto call = run.control().control().whenOffRequest();
  call.setVm(vm);
  call.setReset(arguments.action == Action::RESTART);
  off = call.send()
            .then([this](capnp::Response<host::schema::Control::WhenOffResults> response) {
              // A failure: this VM has no QMP socket, and the guest's word is all there is.
              if (!response.hasFailure()) step("off", kj::str("QEMU: ", shown(response.getHow(), 100)));
              qemuDone = true;
              if (guestGone) finish();
            })
            .eagerlyEvaluate([this](kj::Exception&&) {
              qemuDone = true;
              if (guestGone) finish();
            });
}

kj::Promise<void> PowerTask::forceByQemu() {
  if (over) return kj::READY_NOW;
  forced = true;
  auto call = run.control().control().forcePowerRequest();
  call.setVm(vm);
  call.setReset(arguments.action == Action::RESTART);
  return call.send().then([this](capnp::Response<host::schema::Control::ForcePowerResults> response) {
    if (over) return;
    if (response.hasFailure()) return giveUp(client::failureOf(response.getFailure()));
    step("forced", kj::str(arguments.action == Action::RESTART ? "reset by QEMU" : "turned off by QEMU"));
    // A reset guest has still to come back; the watch says when. Without a session there is nothing to watch.
    if (arguments.action != Action::RESTART || session.get() == nullptr) finish();
  });
}

bool PowerTask::mayProceed() const {
  return !over && !forced && run.world.now() < began + limit;
}

void PowerTask::progress(schema::PowerStep::Reader progress) {
  if (over) return;
  switch (progress.which()) {
    case schema::PowerStep::HOOK:
      accept();
      return step("hook", kj::str("hook ", shown(progress.getHook(), 80)));
    case schema::PowerStep::WAITING:
      accept();
      return step("waiting", kj::str("in ", progress.getWaiting(), " s"));
    case schema::PowerStep::STOPPING:
      accept();
      step("stopping", kj::str("stopping"));
      if (!arguments.wait) finish();
      return;
    case schema::PowerStep::REFUSED:
      return fail(client::failureOf(progress.getRefused()));
  }
  // Of a newer guest: whatever it is, it is not the end.
}

// By the answer, or by a step that has overtaken it.
void PowerTask::accept() {
  if (accepted) return;
  accepted = true;
  step("accepted", kj::str("accepted"));
}

void PowerTask::wentAway(kj::StringPtr how) {
  if (over) return;
  bool back = arguments.action == Action::RESTART;
  auto detail = how.size() == 0 ? kj::str() : kj::str(" (", shown(how, 100), ")");
  step(back ? "back"_kj : "gone"_kj, kj::str(back ? "back" : "gone", detail));
  guestGone = true;
  if (qemuDone || !arguments.wait) finish();
}

void PowerTask::step(kj::StringPtr word, kj::String text) {
  if (over || done.size() >= MAX_STEPS) return;
  if (!run.options.json) run.world.out(kj::str(vm, ": ", text, '\n'));
  done.add(Step{word, kj::mv(text), run.world.now() - began});
}

void PowerTask::fail(client::Failure failure) {
  if (over) return;
  if (arguments.forceAfter != nullptr && mayBeForced(failure.kind)) {
    // Once QEMU was asked, it is QEMU's answer that counts: the guest's link ends because of it.
    if (!forced) step("failed", kj::str(shown(failure.text, 300), "; QEMU does it next"));
    return;
  }
  giveUp(kj::mv(failure));
}

void PowerTask::giveUp(client::Failure failure) {
  if (over) return;
  auto what = Invocation::about(vm, kj::mv(failure));
  if (!run.options.json) run.world.error(errorText(what));
  failed = kj::mv(what);
  finish();
}

void PowerTask::late() {
  auto reached = done.empty() ? kj::str("no answer") : kj::str("no further than '", done.back().word, '\'');
  forced = true;  // too late for that
  giveUp(client::failure(FailureKind::TIMED_OUT, kj::str(reached, " within ", describeDuration(limit))));
}

void PowerTask::finish() {
  if (over) return;
  over = true;
  end.fulfiller->fulfill();
}

}  // namespace postern::cli
