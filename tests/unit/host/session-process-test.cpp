#include "host/session/session-process.h"

#include "tests/unit/host/process-fixture.h"

namespace postern::host {
namespace {

using test::enrol;
using test::has;
using test::LabAgent;
using test::LabGuest;
using test::LinkedGuest;
using test::linkUp;
using test::Observed;
using test::Posternd;
using test::ProcessLab;
namespace wire = postern::schema;
using Kind = schema::Failure::Kind;

TEST_CASE("posternd attaches, links a guest, and hears of it: events, and reports beside them") {
  ProcessLab lab;
  Posternd posternd(lab);
  auto& hello = KJ_REQUIRE_NONNULL(posternd.attached);
  CHECK(hello.getPid() == static_cast<uint32_t>(getpid()));
  CHECK((kj::StringPtr(hello.getVersion()) == POSTERN_VERSION));
  CHECK_FALSE(hello.getState().getConnected());
  CHECK((hello.getState().getAbsence() == schema::SessionState::Absence::NEVER_SEEN));
  auto agent = enrol(lab, posternd);
  LinkedGuest linked;
  linkUp(lab, posternd, linked, agent, agent.identity());
  REQUIRE(linked.proved.poll(lab.io.waitScope));
  CHECK(linked.proved.wait(lab.io.waitScope));
  CHECK(has(posternd.seen, "0 session 2 from here"));
  CHECK(posternd.told.connected);
  CHECK(lab.beat(linked.guest, agent) != 0);
  kj::byte bytes[2 * REPORT_BYTES];
  auto size = recv(posternd.reports, bytes, sizeof(bytes), MSG_DONTWAIT);
  REQUIRE(size == ssize_t(REPORT_BYTES));
  CHECK((parseReport(kj::arrayPtr(bytes, size_t(size))) != nullptr));
}

TEST_CASE("the session outlives its posternd: the guest stays, its heartbeats are answered, and the next one is told") {
  ProcessLab lab;
  auto first = kj::heap<Posternd>(lab);
  auto agent = enrol(lab, *first);
  LinkedGuest linked;
  linkUp(lab, *first, linked, agent, agent.identity());
  first = nullptr;
  lab.settle();
  REQUIRE(linked.guest.isIn());
  lab.advance(1 * kj::SECONDS);
  CHECK(lab.beat(linked.guest, agent) != 0);
  lab.sayGoodbye(linked.guest, wire::Goodbye::SUSPEND);
  lab.kill(linked.guest);
  Posternd second(lab);
  lab.settle();
  auto state = KJ_REQUIRE_NONNULL(second.attached).getState();
  CHECK(state.getEnrolled());
  CHECK_FALSE(state.getConnected());
  CHECK((state.getAbsence() == schema::SessionState::Absence::SAID_GOODBYE));
  CHECK(state.getGoodbye() == static_cast<uint16_t>(wire::Goodbye::SUSPEND));
  CHECK(has(second.seen, "suspended"));
}

TEST_CASE("a guest that vanished while nobody looked is known as lost") {
  ProcessLab lab;
  auto first = kj::heap<Posternd>(lab);
  auto agent = enrol(lab, *first);
  first = nullptr;
  lab.settle();
  Posternd second(lab);
  CHECK((KJ_REQUIRE_NONNULL(second.attached).getState().getAbsence() == schema::SessionState::Absence::LOST));
}

TEST_CASE("of what happens without a posternd the newest events are kept, and no more than so many") {
  ProcessLab lab;
  auto first = kj::heap<Posternd>(lab);
  auto agent = enrol(lab, *first);
  // Connections that it passed on before it went.
  constexpr unsigned MANY = MAX_KEPT_EVENTS + 10;
  kj::Vector<kj::AutoCloseFd> sockets;
  for (unsigned i = 0; i < MANY; ++i) {
    auto pair = newSocketPair(SOCK_STREAM);
    sockets.add(kj::mv(pair.second));
    first->link(kj::mv(pair.first)).detach([](kj::Exception&&) {});
    lab.settle();
  }
  first = nullptr;
  lab.settle();
  kj::Vector<kj::Own<LabGuest>> guests;
  for (auto& socket : sockets) {
    auto& guest = *guests.add(kj::heap<LabGuest>());
    lab.attach(guest, agent, agent.identity(), kj::mv(socket));
    lab.settle();
    REQUIRE(guest.isIn());
  }
  Posternd second(lab);
  lab.settle();
  CHECK(second.seen.size() == MAX_KEPT_EVENTS);
  CHECK(has(second.seen, kj::str("session ", MANY + 1, " from")));
  CHECK_FALSE(has(second.seen, "session 2 from"));
}

TEST_CASE("a caller's calls go to the guest and to nobody else, within its grant, and are reported") {
  ProcessLab lab;
  Posternd posternd(lab);
  auto caller = posternd.introduce(lab, 42, {"info.os"_kj, "power.shutdown"_kj});
  auto ping = caller.calls.pingRequest().send().wait(lab.io.waitScope);
  CHECK((ping.getFailure().getKind() == Kind::DENIED));
  auto request = caller.calls.infoRequest();
  request.setWhat(1);
  auto info = request.send().wait(lab.io.waitScope);
  CHECK((info.getFailure().getKind() == Kind::NOT_CONNECTED));
  request = caller.calls.infoRequest();
  request.setWhat(2 + 4 + 8);
  CHECK((request.send().wait(lab.io.waitScope).getFailure().getKind() == Kind::DENIED));
  auto power = caller.calls.powerRequest();
  power.initRequest().setAction(wire::PowerRequest::Action::RESTART);
  CHECK((power.send().wait(lab.io.waitScope).getFailure().getKind() == Kind::DENIED));
  auto bundle = caller.calls.issueBundleRequest().send().wait(lab.io.waitScope);
  CHECK((bundle.getFailure().getKind() == Kind::DENIED));
  CHECK_FALSE(lab.keys->isOfferOut());
  lab.settle();
  CHECK(has(posternd.seen, "operation 42 info: not connected"));
}

// T80
TEST_CASE("of single files a session tells so many a second, and of operations all") {
  ProcessLab lab;
  Posternd posternd(lab);
  FileTally tally;
  auto operation = [&](kj::StringPtr entry) {
    OperationRecord record{7, "file.put", "done"};
    record.path = "/srv";
    record.entry = entry;
    record.files = tally;
    bool told = static_cast<OperationLog&>(lab.process).operation(record);
    lab.settle();
    return told;
  };
  unsigned told = 0;
  for (unsigned i = 0; i < 3 * FILE_LINES_BURST; ++i) told += operation("/srv/a");
  CHECK(told == FILE_LINES_BURST);
  CHECK(operation(""));
  lab.advance(1 * kj::SECONDS);
  told = 0;
  for (unsigned i = 0; i < 3 * FILE_LINES_BURST; ++i) told += operation("/srv/a");
  CHECK(told == FILE_LINES_PER_SECOND);
  // A posternd that does not answer: files give way to operations.
  Posternd slow(lab, /* answers */ false);
  lab.advance(60 * kj::SECONDS);
  told = 0;
  for (unsigned i = 0; i < FILE_LINES_BURST; ++i) told += operation("/srv/a");
  lab.advance(60 * kj::SECONDS);
  for (unsigned i = 0; i < FILE_LINES_BURST; ++i) told += operation("/srv/a");
  CHECK(told == MAX_UNANSWERED / 2);
  CHECK(operation(""));
}

TEST_CASE("pings are told once a second, all together, and what was not told is told to the next posternd") {
  ProcessLab lab;
  auto& log = static_cast<OperationLog&>(lab.process);
  auto posternd = kj::heap<Posternd>(lab);
  for (unsigned i = 0; i < 1000; ++i) log.pinged(100 * kj::MICROSECONDS);
  log.pinged(nullptr);
  lab.settle();
  CHECK_FALSE(has(posternd->seen, "pings"));
  lab.advance(PINGS_TOLD_EVERY);
  CHECK(has(posternd->seen, "pings 1000 and 1"));
  lab.advance(10 * PINGS_TOLD_EVERY);
  CHECK_FALSE(has(posternd->seen, "pings 0 and 0"));
  posternd = nullptr;
  lab.settle();
  log.pinged(nullptr);
  lab.advance(PINGS_TOLD_EVERY);
  Posternd next(lab);
  log.pinged(1 * kj::SECONDS);
  lab.advance(PINGS_TOLD_EVERY);
  CHECK(has(next.seen, "pings 1 and 1"));
}

TEST_CASE("grants end when no posternd has come back for a minute, and not before") {
  ProcessLab lab;
  auto posternd = kj::heap<Posternd>(lab);
  auto caller = posternd->introduce(lab, 1, {"ping"_kj});
  auto over = caller.rpc->onDisconnect();
  posternd = nullptr;
  lab.settle();
  lab.advance(ABANDONED - 1 * kj::SECONDS);
  CHECK_FALSE(over.poll(lab.io.waitScope));
  lab.advance(2 * kj::SECONDS);
  CHECK(over.poll(lab.io.waitScope));
}

TEST_CASE("what an earlier posternd granted ends a minute after the next one has come; what that one grants stays") {
  ProcessLab lab;
  auto first = kj::heap<Posternd>(lab);
  auto early = first->introduce(lab, 1, {"ping"_kj});
  auto earlyOver = early.rpc->onDisconnect();
  first = nullptr;
  lab.settle();
  Posternd second(lab);
  auto late = second.introduce(lab, 2, {"ping"_kj});
  auto lateOver = late.rpc->onDisconnect();
  lab.advance(ABANDONED - 1 * kj::SECONDS);
  CHECK_FALSE(earlyOver.poll(lab.io.waitScope));
  lab.advance(2 * kj::SECONDS);
  CHECK(earlyOver.poll(lab.io.waitScope));
  CHECK_FALSE(lateOver.poll(lab.io.waitScope));
}

TEST_CASE("callers come and go without using up the places") {
  ProcessLab lab;
  Posternd posternd(lab);
  for (unsigned i = 0; i < MAX_CALLERS + 10; ++i) {
    auto caller = posternd.introduce(lab, i, {"ping"_kj});
    (void)caller.calls.pingRequest().send().wait(lab.io.waitScope);
    caller.rpc = nullptr;
    lab.settle();
  }
}

TEST_CASE("a posternd that never answers costs a bounded number of calls, and no heartbeat") {
  ProcessLab lab;
  Posternd posternd(lab, /* answers */ false);
  auto agent = enrol(lab, posternd);
  auto caller = posternd.introduce(lab, 1, {"info.os"_kj});
  for (unsigned i = 0; i < MAX_UNANSWERED + 50; ++i) {
    auto request = caller.calls.infoRequest();
    request.setWhat(1);
    (void)request.send().wait(lab.io.waitScope);
  }
  CHECK(posternd.seen.size() <= MAX_UNANSWERED);
  LinkedGuest linked;
  linkUp(lab, posternd, linked, agent, agent.identity());
  REQUIRE(linked.guest.isIn());
  CHECK(lab.beat(linked.guest, agent) != 0);
  CHECK(posternd.told.states == 1);
}

TEST_CASE("a posternd that dies in the middle of attaching, or passes no descriptor, harms nobody") {
  ProcessLab lab;
  for (int turns = 0; turns < 12; ++turns) {
    kj::Vector<kj::String> seen;
    LocalRpc rpc(*lab.io.lowLevelProvider, lab.dial());
    auto control = rpc.peer().castAs<schema::SessionControl>();
    auto request = control.attachRequest();
    request.setObserver(kj::heap<Observed>(seen));
    auto pair = newSocketPair(SOCK_SEQPACKET);
    request.setReports(newDescriptor(kj::mv(pair.second)));
    auto answer = request.send();
    // Gone at another moment each time.
    lab.io.provider->getTimer().afterDelay(turns * 50 * kj::MICROSECONDS).wait(lab.io.waitScope);
  }
  lab.settle();
  Posternd posternd(lab);
  auto request = posternd.control.linkRequest();
  request.setTransport(1);
  CHECK_THROWS(request.send().wait(lab.io.waitScope));
  auto wrong = posternd.control.linkRequest();
  wrong.setTransport(99);
  CHECK_THROWS(wrong.send().wait(lab.io.waitScope));
  CHECK_THROWS(posternd.control.introduceRequest().send().wait(lab.io.waitScope));
  auto agent = enrol(lab, posternd);
  CHECK(lab.keys->isEnrolled());
}

TEST_CASE("bytes that are no RPC end that connection and no other") {
  ProcessLab lab;
  Posternd posternd(lab);
  auto socket = lab.dial();
  auto garbage = kj::heapArray<kj::byte>(4096);
  memset(garbage.begin(), 0xff, garbage.size());
  KJ_SYSCALL(::write(socket, garbage.begin(), garbage.size()));
  lab.settle();
  kj::byte byte;
  ssize_t got;
  while ((got = recv(socket, &byte, 1, MSG_DONTWAIT)) > 0) {
  }
  CHECK((got == 0 || errno == ECONNRESET));
  auto agent = enrol(lab, posternd);
  CHECK(lab.keys->isEnrolled());
}

TEST_CASE("stopping says goodbye to the guest, cancels what callers have under way, and ends the process") {
  ProcessLab lab;
  Posternd posternd(lab);
  auto agent = enrol(lab, posternd);
  struct Slow final : public wire::GuestCalls::Server {
    kj::Promise<void> info(InfoContext) override { return kj::NEVER_DONE; }
  };
  agent.calls = wire::GuestCalls::Client(kj::heap<Slow>());
  LinkedGuest linked;
  linkUp(lab, posternd, linked, agent, agent.identity());
  REQUIRE(linked.guest.isIn());
  auto caller = posternd.introduce(lab, 1, {"info.os"_kj});
  auto request = caller.calls.infoRequest();
  request.setWhat(1);
  auto answer = request.send();
  lab.settle();
  posternd.control.stopRequest().send().wait(lab.io.waitScope);
  lab.settle();
  CHECK(lab.running.poll(lab.io.waitScope));
  CHECK((KJ_REQUIRE_NONNULL(linked.guest.closeCode()) == CloseCode::GOODBYE));
  CHECK_THROWS(answer.wait(lab.io.waitScope));
}

// What a guest answers ---------------------------------------------------------------------------------------------

struct Answers final : public wire::GuestCalls::Server {
  kj::Function<kj::Promise<void>(PingContext)> onPing = [](PingContext) -> kj::Promise<void> { return kj::READY_NOW; };
  kj::Function<kj::Promise<void>(InfoContext)> onInfo = [](InfoContext) -> kj::Promise<void> { return kj::READY_NOW; };
  kj::Function<kj::Promise<void>(PowerContext)> onPower = [](PowerContext) -> kj::Promise<void> {
    return kj::READY_NOW;
  };
  kj::Promise<void> ping(PingContext context) override { return onPing(context); }
  kj::Promise<void> info(InfoContext context) override { return onInfo(context); }
  kj::Promise<void> power(PowerContext context) override { return onPower(context); }
};

struct CallsLab : public ProcessLab {
  Posternd posternd{*this};
  LabAgent agent = enrol(*this, posternd);
  Answers* answers = nullptr;
  LinkedGuest linked;
  Posternd::Caller caller = makeCaller();

  Posternd::Caller makeCaller() {
    auto server = kj::heap<Answers>();
    answers = server.get();
    agent.calls = wire::GuestCalls::Client(kj::mv(server));
    linkUp(*this, posternd, linked, agent, agent.identity());
    REQUIRE(linked.guest.isIn());
    return posternd.introduce(*this, 9, {"ping"_kj, "info.os"_kj, "info.network"_kj, "power.shutdown"_kj});
  }
  // Turns the loop until it is there; a hand-turned clock does not go on meanwhile.
  template <typename T>
  T take(kj::Promise<T> promise) {
    for (int i = 0; i < 100 && !promise.poll(io.waitScope); ++i) usleep(1000);
    REQUIRE(promise.poll(io.waitScope));
    return promise.wait(io.waitScope);
  }
};

TEST_CASE("a guest's silence, failure and refusal are told apart") {
  CallsLab lab;
  auto ping = [&]() { return lab.caller.calls.pingRequest().send(); };
  CHECK_FALSE(ping().wait(lab.io.waitScope).hasFailure());
  lab.answers->onPing = [](auto) -> kj::Promise<void> { return KJ_EXCEPTION(FAILED, "my secret path"); };
  auto failed = ping().wait(lab.io.waitScope);
  CHECK((failed.getFailure().getKind() == Kind::FAILED));
  CHECK(strstr(failed.getFailure().getText().cStr(), "secret") == nullptr);
  lab.answers->onPing = [](auto) -> kj::Promise<void> { return KJ_EXCEPTION(UNIMPLEMENTED, "no"); };
  CHECK((ping().wait(lab.io.waitScope).getFailure().getKind() == Kind::REFUSED));
  lab.answers->onPing = [](auto context) -> kj::Promise<void> {
    auto refusal = context.getResults().initRefusal();
    refusal.setReason(wire::Refusal::Reason::DENIED);
    refusal.setDetail("no\x1b[31m rule\n");
    return kj::READY_NOW;
  };
  auto denied = ping().wait(lab.io.waitScope);
  CHECK((denied.getFailure().getKind() == Kind::DENIED));
  CHECK((denied.getFailure().getLock() == schema::Failure::Lock::GUEST));
  for (char c : denied.getFailure().getText()) CHECK((c >= ' ' && c <= '~'));
  lab.answers->onPing = [](auto) -> kj::Promise<void> { return kj::NEVER_DONE; };
  auto silent = ping();
  lab.settle();
  lab.advance(PING_CALL_DEADLINE + 1 * kj::SECONDS);
  CHECK((silent.wait(lab.io.waitScope).getFailure().getKind() == Kind::TIMED_OUT));
  auto cut = ping();
  lab.settle();
  lab.kill(lab.linked.guest);
  CHECK((cut.wait(lab.io.waitScope).getFailure().getKind() == Kind::NOT_CONNECTED));
  auto away = ping().wait(lab.io.waitScope);
  CHECK((away.getFailure().getKind() == Kind::NOT_CONNECTED));
}

TEST_CASE("only the parts of info that were granted are asked for; an answer that is too large is not passed on") {
  CallsLab lab;
  uint32_t asked = 0;
  lab.answers->onInfo = [&](auto context) -> kj::Promise<void> {
    asked = context.getParams().getWhat();
    context.getResults().initInfo().setAgentVersion("1");
    return kj::READY_NOW;
  };
  auto info = [&]() {
    auto request = lab.caller.calls.infoRequest();
    request.setWhat(0xffffffff);
    return request.send().wait(lab.io.waitScope);
  };
  CHECK_FALSE(info().hasFailure());
  CHECK(asked == 3);
  lab.answers->onInfo = [&](auto context) -> kj::Promise<void> {
    auto features = context.getResults().initInfo().initFeatures(1);
    features.init(0, MAX_INFO_WORDS * 8 + 1);
    return kj::READY_NOW;
  };
  auto huge = info();
  CHECK((huge.getFailure().getKind() == Kind::FAILED));
  CHECK_FALSE(huge.hasInfo());
  CHECK(has(lab.posternd.seen, "operation 9 info: done"));
}

TEST_CASE("a guest reports so many steps of power, made printable; what is more the caller does not hear") {
  CallsLab lab;
  struct Steps final : public wire::PowerObserver::Server {
    unsigned& steps;
    unsigned& asked;
    kj::String& last;
    Steps(unsigned& steps, unsigned& asked, kj::String& last) : steps(steps), asked(asked), last(last) {}
    kj::Promise<void> proceed(ProceedContext context) override {
      ++asked;
      context.getResults().setProceed(true);
      return kj::READY_NOW;
    }
    kj::Promise<void> progress(ProgressContext context) override {
      ++steps;
      auto step = context.getParams().getStep();
      if (step.isHook()) last = kj::str(step.getHook());
      return kj::READY_NOW;
    }
  };
  unsigned steps = 0, asked = 0;
  kj::String last;
  kj::Maybe<wire::PowerObserver::Client> observer;
  lab.answers->onPower = [&](auto context) -> kj::Promise<void> {
    observer = context.getParams().getObserver();
    context.getResults().setOperation(77);
    return kj::READY_NOW;
  };
  auto request = lab.caller.calls.powerRequest();
  request.initRequest().setAction(wire::PowerRequest::Action::SHUTDOWN);
  request.setObserver(kj::heap<Steps>(steps, asked, last));
  CHECK(request.send().wait(lab.io.waitScope).getOperation() == 77);
  auto& relay = KJ_REQUIRE_NONNULL(observer);
  CHECK(relay.proceedRequest().send().wait(lab.io.waitScope).getProceed());
  for (unsigned i = 0; i < MAX_POWER_STEPS + 20; ++i) {
    auto step = relay.progressRequest();
    step.initStep().setHook(kj::str("\x1b]0;evil\x07", kj::repeat('x', 200)));
    step.send().wait(lab.io.waitScope);
  }
  CHECK(steps == MAX_POWER_STEPS - 1);
  CHECK(last.size() <= 64 + 3);
  for (char c : last) CHECK((c >= ' ' && c <= '~'));
  // Neither does it get another yes.
  CHECK_FALSE(relay.proceedRequest().send().wait(lab.io.waitScope).getProceed());
  CHECK(asked == 1);
}

TEST_CASE("a caller that goes away takes its call with it, and that is recorded") {
  CallsLab lab;
  unsigned cancelled = 0;
  lab.answers->onInfo = [&](auto context) -> kj::Promise<void> {
    context.allowCancellation();
    return kj::Promise<void>(kj::NEVER_DONE).attach(kj::defer([&]() { ++cancelled; }));
  };
  auto request = lab.caller.calls.infoRequest();
  request.setWhat(1);
  auto answer = request.send();
  lab.settle();
  lab.caller.rpc = nullptr;
  lab.settle();
  CHECK(cancelled == 1);
  CHECK(has(lab.posternd.seen, "operation 9 info: given up"));
}

}  // namespace
}  // namespace postern::host
