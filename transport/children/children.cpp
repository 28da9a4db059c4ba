#include "transport/children/children.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/children/child-start.h"
#include "transport/children/process-group.h"

namespace postern {

// From its start until it is reaped or left behind. Owned by its task.
class Children::Child {
 public:
  Child(Children& children, StartedChild started, const ChildDescription& description,
        kj::Own<kj::PromiseFulfiller<StartOutcome>> startKnown);
  ~Child() noexcept(false);
  KJ_DISALLOW_COPY(Child);

  kj::Promise<void> live(kj::Maybe<kj::Duration> limit);

 private:
  friend class Waiting;
  enum class Event { EXITED, START_DEADLINE, LIMIT, ABANDONED };

  Children& children;
  pid_t pid;
  bool detached;
  kj::Duration grace;
  const kj::String program;
  bool gone = false;  // reaped, or left behind
  kj::AutoCloseFd pidfd;
  kj::AutoCloseFd output;
  kj::AutoCloseFd start;
  kj::UnixEventPort::FdObserver startObserver;
  kj::UnixEventPort::FdObserver exitObserver;
  kj::Maybe<kj::UnixEventPort::FdObserver> outputObserver;  // null: its output is not kept
  kj::Vector<kj::byte> taken;
  kj::Maybe<Waiting&> waiting;
  kj::Own<kj::PromiseFulfiller<void>> abandoned;
  kj::Own<kj::PromiseFulfiller<StartOutcome>> startKnown;
  bool isStartKnown = false;
  kj::Maybe<kj::String> whyNotStarted;
  kj::Promise<void> starting = nullptr;
  kj::ForkedPromise<void> exited = nullptr;
  kj::Promise<void> pumping = nullptr;

  kj::Timer& timer() { return children.port.getTimer(); }
  void report(ChildEnd end);
  void startIsKnown(kj::Maybe<kj::String> whyNot);
  StartOutcome notStarted();
  kj::Promise<void> untilStartDeadline();
  kj::Promise<void> giveUpStart();
  bool takeOutput();  // false if there may be more at once
  kj::Promise<void> pump();
  kj::Promise<void> untilExit();
  kj::Promise<bool> exitsWithin(kj::Duration time);  // whether it did
  kj::Promise<void> onEvent(Event event);
  kj::Promise<void> terminate();
  kj::Promise<void> killHard();
  ChildEnd reap();
  kj::Promise<void> finish();
};

// Who waits for the end; told to the child when he no longer does.
class Children::Waiting {
 public:
  Waiting(kj::PromiseFulfiller<ChildEnd>& fulfiller, Child& child) : fulfiller(fulfiller), child(child) {
    child.waiting = *this;
  }
  ~Waiting() noexcept(false) {
    KJ_IF_MAYBE (still, child) {
      still->waiting = nullptr;
      still->abandoned->fulfill();
    }
  }
  KJ_DISALLOW_COPY(Waiting);

  void end(ChildEnd end) {
    child = nullptr;
    fulfiller.fulfill(kj::mv(end));
  }

 private:
  kj::PromiseFulfiller<ChildEnd>& fulfiller;
  kj::Maybe<Child&> child;
};

Children::Child::Child(Children& children, StartedChild started, const ChildDescription& description,
                       kj::Own<kj::PromiseFulfiller<StartOutcome>> startKnown)
    : children(children),
      pid(started.pid),
      detached(description.detached),
      grace(description.grace),
      program(kj::str(description.argv[0])),
      pidfd(kj::mv(started.pidfd)),
      output(kj::mv(started.output)),
      start(kj::mv(started.start)),
      startObserver(children.port, start, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      exitObserver(children.port, pidfd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      startKnown(kj::mv(startKnown)) {
  if (output.get() >= 0) {
    outputObserver.emplace(children.port, output, kj::UnixEventPort::FdObserver::OBSERVE_READ);
  }
  ++children.alive;
  starting = startObserver.whenBecomesReadable()
                 .then([this] { startIsKnown(startFailure(start, program)); })
                 .eagerlyEvaluate(nullptr);
  exited = untilExit().fork();
  pumping = pump().eagerlyEvaluate(nullptr);
}

Children::Child::~Child() noexcept(false) {
  --children.alive;
  startIsKnown(kj::str("the process that starts programs ends"));
  report(ChildNotStarted{kj::str("the process that starts programs ends")});
  if (gone || detached) return;
  kill(-pid, SIGKILL);
  waitpid(pid, nullptr, WNOHANG);
}

void Children::Child::report(ChildEnd end) {
  KJ_IF_MAYBE (one, waiting) {
    one->end(kj::mv(end));
    waiting = nullptr;
  }
}

// The first word counts.
void Children::Child::startIsKnown(kj::Maybe<kj::String> whyNot) {
  if (isStartKnown) return;
  isStartKnown = true;
  whyNotStarted = kj::mv(whyNot);
  startKnown->fulfill(notStarted());
}

kj::Maybe<ChildNotStarted> Children::Child::notStarted() {
  return whyNotStarted.map([](kj::String& why) { return ChildNotStarted{kj::str(why)}; });
}

bool Children::Child::takeOutput() {
  if (outputObserver == nullptr) return true;
  kj::byte buffer[4096];
  // A child that writes without end gets its turn, not the loop.
  for (size_t turn = 0; turn < MAX_CHILD_OUTPUT / sizeof(buffer); ++turn) {
    ssize_t got = read(output, buffer, sizeof(buffer));
    if (got <= 0) return got == 0 || errno != EINTR;
    taken.addAll(buffer, buffer + kj::min(size_t(got), MAX_CHILD_OUTPUT - taken.size()));
  }
  return false;
}

kj::Promise<void> Children::Child::pump() {
  KJ_IF_MAYBE (observer, outputObserver) {
    auto more = takeOutput() ? observer->whenBecomesReadable() : kj::Promise<void>(kj::READY_NOW);
    return more.then([this] { return pump(); });
  }
  return kj::NEVER_DONE;
}

kj::Promise<void> Children::Child::untilExit() {
  return exitObserver.whenBecomesReadable().then([this]() -> kj::Promise<void> {
    siginfo_t info{};
    bool spurious = waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
    return spurious ? untilExit() : kj::READY_NOW;
  });
}

kj::Promise<bool> Children::Child::exitsWithin(kj::Duration time) {
  return exited.addBranch().then([] { return true; }).exclusiveJoin(timer().afterDelay(time).then([] {
    return false;
  }));
}

kj::Promise<void> Children::Child::live(kj::Maybe<kj::Duration> limit) {
  kj::Promise<void> tooLate = kj::NEVER_DONE;
  KJ_IF_MAYBE (time, limit) tooLate = timer().afterDelay(*time);
  auto whenAbandoned = kj::newPromiseAndFulfiller<void>();
  abandoned = kj::mv(whenAbandoned.fulfiller);
  return exited.addBranch()
      .then([] { return Event::EXITED; })
      .exclusiveJoin(untilStartDeadline().then([] { return Event::START_DEADLINE; }))
      .exclusiveJoin(tooLate.then([] { return Event::LIMIT; }))
      .exclusiveJoin(whenAbandoned.promise.then([] { return Event::ABANDONED; }))
      .then([this](Event event) { return onEvent(event); });
}

kj::Promise<void> Children::Child::untilStartDeadline() {
  return timer().afterDelay(CHILD_START_DEADLINE).then([this]() -> kj::Promise<void> {
    if (isStartKnown) return kj::NEVER_DONE;  // in time
    return kj::READY_NOW;
  });
}

kj::Promise<void> Children::Child::onEvent(Event event) {
  if (event == Event::EXITED) return finish();
  if (event == Event::START_DEADLINE) return giveUpStart();
  if (event == Event::LIMIT) report(ChildTimedOut{});
  if (detached) return exited.addBranch().then([this] { return finish(); });
  if (event == Event::LIMIT || grace == 0 * kj::SECONDS) return terminate();
  return exitsWithin(grace).then([this](bool exited) { return exited ? finish() : terminate(); });
}

// T92
kj::Promise<void> Children::Child::giveUpStart() {
  startIsKnown(kj::str("cannot start ", program, ": its file system does not answer"));
  report(KJ_ASSERT_NONNULL(notStarted()));
  detached = false;  // it is not to begin later, when nobody expects it
  return terminate();
}

kj::Promise<void> Children::Child::terminate() {
  kill(-pid, SIGTERM);
  return exitsWithin(CHILD_GRACE).then([this](bool exited) { return exited ? finish() : killHard(); });
}

kj::Promise<void> Children::Child::killHard() {
  kill(-pid, SIGKILL);
  return exitsWithin(CHILD_GRACE).then([this](bool exited) -> kj::Promise<void> {
    if (exited) return finish();
    gone = true;
    children.stuck.add(Stuck{pid, false});
    children.tell(kj::str("child-left-behind pid=", pid,
                          ": it does not die of SIGKILL; is a disk or a network file system dead?"));
    return kj::READY_NOW;
  });
}

ChildEnd Children::Child::reap() {
  // Its group first, while the dead leader keeps the number from being used again.
  if (!detached) kill(-pid, SIGKILL);
  int status = 0;
  gone = true;
  pid_t reaped = waitpid(pid, &status, WNOHANG);
  if (reaped != pid) return ChildKilled{0};  // somebody else has reaped it
  if (WIFSIGNALED(status)) return ChildKilled{WTERMSIG(status)};
  return ChildExited{WEXITSTATUS(status), taken.releaseAsArray()};
}

kj::Promise<void> Children::Child::finish() {
  pumping = nullptr;
  takeOutput();
  startIsKnown(startFailure(start, program));
  auto end = reap();
  KJ_IF_MAYBE (failure, notStarted()) end = kj::mv(*failure);
  report(kj::mv(end));
  if (detached || kill(-pid, 0) < 0) return kj::READY_NOW;
  // What it left in the background has been killed, too, and gets time to die.
  return timer().afterDelay(CHILD_GRACE).then([this] {
    if (groupRuns(pid)) children.stuck.add(Stuck{pid, true});
  });
}

Children::Children(kj::UnixEventPort& port, Tell tell, size_t most)
    : port(port), tell(kj::mv(tell)), most(most), tasks(*this) {}
Children::~Children() noexcept(false) {}

kj::Promise<ChildEnd> Children::run(ChildDescription description) {
  return start(kj::mv(description)).end;
}

kj::Maybe<kj::String> Children::whyNoRoom() {
  if (leftBehind() >= MAX_LEFT_BEHIND) return kj::str("too many processes hang (a dead disk or network file system)");
  if (alive >= most) return kj::str("too many programs run already");
  return nullptr;
}

Children::Starting Children::start(ChildDescription description) {
  auto notStarted = [](kj::StringPtr why) -> Starting {
    return {StartOutcome(ChildNotStarted{kj::str(why)}), ChildEnd(ChildNotStarted{kj::str(why)})};
  };
  KJ_IF_MAYBE (why, whyNoRoom()) return notStarted(*why);
  auto started = startChild(description);
  KJ_IF_MAYBE (error, started.tryGet<kj::String>()) return notStarted(*error);
  auto startKnown = kj::newPromiseAndFulfiller<StartOutcome>();
  auto child = kj::heap<Child>(*this, kj::mv(started.get<StartedChild>()), description, kj::mv(startKnown.fulfiller));
  auto& borrowed = *child;
  auto end = kj::newAdaptedPromise<ChildEnd, Waiting>(borrowed);
  tasks.add(borrowed.live(description.limit).attach(kj::mv(child)));
  return {kj::mv(startKnown.promise), kj::mv(end)};
}

size_t Children::leftBehind() {
  kj::Vector<Stuck> still;
  for (auto& one : stuck) {
    if (!one.leaderReaped) one.leaderReaped = waitpid(one.group, nullptr, WNOHANG) != 0;
    if (!one.leaderReaped || groupRuns(one.group)) still.add(one);
  }
  stuck = kj::mv(still);
  return stuck.size();
}

void Children::taskFailed(kj::Exception&& exception) {
  tell(kj::str("child-failed: ", exception.getDescription()));
}

}  // namespace postern
