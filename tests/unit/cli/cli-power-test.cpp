#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::test;

namespace {

using Observer = schema::PowerObserver::Client;

kj::Promise<void> stopping(Observer observer) {
  auto request = observer.progressRequest();
  request.initStep().setStopping();
  return request.send().ignoreResult();
}

kj::Promise<void> hook(Observer observer, kj::StringPtr name) {
  auto request = observer.progressRequest();
  request.initStep().setHook(name);
  return request.send().ignoreResult();
}

kj::Promise<void> refused(Observer observer, schema::Refusal::Reason reason, kj::StringPtr detail) {
  auto request = observer.progressRequest();
  auto refusal = request.initStep().initRefused();
  refusal.setReason(reason);
  refusal.setDetail(detail);
  return request.send().ignoreResult();
}

// What an agent does: asks, says that it stops, and is gone.
void shutsDownWell(CliWorld& world) {
  auto gone = kj::newPromiseAndFulfiller<void>();
  world.session.gone = kj::mv(gone.promise);
  auto fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(kj::mv(gone.fulfiller));
  world.session.power = [fulfiller](Observer observer) {
    return observer.proceedRequest().send().then([observer, fulfiller](auto answer) mutable -> kj::Promise<void> {
      if (!answer.getProceed()) return kj::READY_NOW;
      return stopping(observer).then([fulfiller]() { (*fulfiller)->fulfill(); });
    });
  };
}

}  // namespace

TEST_CASE("a shutdown's steps are separate lines, and with --wait it ends with gone") {
  CliWorld world;
  shutsDownWell(world);
  CHECK(world.run({"shutdown", "web1", "--wait"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: stopping\nweb1: gone (goodbye)\n");
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("with --wait and a QMP socket the end is QEMU's word, whichever comes last") {
  CliWorld world;
  shutsDownWell(world);
  world.control.qemuOff = world.timer().afterDelay(100 * kj::MILLISECONDS);
  CHECK(world.run({"shutdown", "web1", "--wait"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: stopping\nweb1: gone (goodbye)\nweb1: QEMU: SHUTDOWN\n");
}

TEST_CASE("with --wait and a QMP socket a guest that is gone is not the end while QEMU says nothing") {
  CliWorld world;
  shutsDownWell(world);
  world.control.qemuOff = kj::Promise<void>(kj::NEVER_DONE);
  CHECK(world.run({"shutdown", "web1", "--wait", "--timeout", "0.2"}) == ExitStatus::TIMED_OUT);
  CHECK(contains(world.errors(), "no further than 'gone'"));
}

TEST_CASE("without --wait a shutdown ends with stopping") {
  CliWorld world;
  world.session.power = [](Observer observer) { return stopping(observer); };
  CHECK(world.run({"shutdown", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: stopping\n");
}

TEST_CASE("the request carries delay, message and the time that the caller waits") {
  CliWorld world;
  world.session.power = [](Observer observer) { return stopping(observer); };
  CHECK(world.run({"shutdown", "web1", "--delay", "30", "--message", "tea", "--timeout", "40"}) == ExitStatus::DONE);
  CHECK(world.session.delaySeconds == 30);
  CHECK((world.session.message == "tea"));
  CHECK(world.session.deadlineMilliseconds == 40'000);
  CHECK((KJ_ASSERT_NONNULL(world.session.askedReset) == false));
  CHECK(world.run({"shutdown", "web1", "--delay", "30"}) == ExitStatus::DONE);
  CHECK(world.session.deadlineMilliseconds == 150'000);
}

TEST_CASE("a timeout that is over before the delay makes no sense, and nothing is asked") {
  CliWorld world;
  CHECK(world.run({"shutdown", "web1", "--delay", "30", "--timeout", "20"}) == ExitStatus::USAGE);
  CHECK(world.run({"shutdown", "web1", "--force-after", "30", "--timeout", "30"}) == ExitStatus::USAGE);
  CHECK(world.control.calls == 0);
}

TEST_CASE("a restart is over when the guest is back") {
  CliWorld world;
  shutsDownWell(world);
  CHECK(world.run({"restart", "web1", "--wait"}) == ExitStatus::DONE);
  CHECK((KJ_ASSERT_NONNULL(world.session.askedReset) == true));
  CHECK(contains(world.output(), "web1: back (goodbye)\n"));
}

TEST_CASE("a restart has failed if the old boot comes back") {
  CliWorld world;
  shutsDownWell(world);
  world.session.goneFailure = "the old boot came back";
  CHECK(world.run({"restart", "web1", "--wait"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "postern: web1: the old boot came back\n"));
}

TEST_CASE("hooks are named, and their names are made printable") {
  CliWorld world;
  world.session.power = [](Observer observer) {
    return hook(observer, "flush\033[2J").then([observer]() mutable { return stopping(observer); });
  };
  CHECK(world.run({"shutdown", "web1"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "web1: hook flush?[2J\n"));
}

TEST_CASE("what the guest refuses after it has accepted has its status") {
  using Reason = schema::Refusal::Reason;
  struct Case {
    Reason reason;
    ExitStatus status;
  };
  for (auto& one : {Case{Reason::DENIED, ExitStatus::DENIED}, Case{Reason::UNSUPPORTED, ExitStatus::REFUSED},
                    Case{Reason::INVALID, ExitStatus::REFUSED}, Case{Reason::BUSY, ExitStatus::REFUSED},
                    Case{Reason::TOO_LATE, ExitStatus::TIMED_OUT}, Case{Reason::FAILED, ExitStatus::FAILED},
                    Case{Reason::INHIBITED, ExitStatus::REFUSED}}) {
    CliWorld world;
    auto reason = one.reason;
    world.session.power = [reason](Observer observer) { return refused(observer, reason, "apt-daily.service"); };
    CHECK(world.run({"shutdown", "web1", "--wait"}) == one.status);
    CHECK(contains(world.errors(), "apt-daily.service"));
  }
}

TEST_CASE("of several VMs each has its lines, and the worst decides") {
  CliWorld world;
  world.control.offline.add(kj::str("web2"));
  world.control.unknown.add(kj::str("web3"));
  world.session.power = [](Observer observer) { return stopping(observer); };
  CHECK(world.run({"shutdown", "web1", "web2", "web3", "web1"}) == ExitStatus::NOT_CONNECTED);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: stopping\n");
  CHECK(contains(world.errors(), "postern: web2: not connected"));
  CHECK(contains(world.errors(), "postern: web3: unknown VM\n"));

  CHECK(world.run({"shutdown", "web1", "web2", "--json"}) == ExitStatus::NOT_CONNECTED);
  CHECK(world.output().startsWith("{\"ok\":false,\"action\":\"shutdown\",\"vms\":[{\"vm\":\"web1\",\"ok\":true,"));
  CHECK(contains(world.output(), "{\"vm\":\"web2\",\"ok\":false,\"steps\":[],\"error\":{\"kind\":\"not-connected\""));
  CHECK(world.output().endsWith("\"exitStatus\":4}\n"));
}

TEST_CASE("a guest that accepts and never stops is told of when the time is over") {
  CliWorld world;
  CHECK(world.run({"shutdown", "web1", "--timeout", "0.05"}) == ExitStatus::TIMED_OUT);
  CHECK_TEXT(world.errors(), "postern: web1: no further than 'accepted' within 50 ms\n");
}

TEST_CASE("a caller whose time is over says no when the guest asks at last") {
  CliWorld world;
  kj::Maybe<Observer> kept;
  world.session.power = [&kept](Observer observer) {
    kept = observer;
    return kj::Promise<void>(kj::READY_NOW);
  };
  // Another VM keeps the program alive beyond the first one's end.
  CHECK(world.run({"shutdown", "web1", "--timeout", "0.05"}) == ExitStatus::TIMED_OUT);
  bool mayProceed = false;
  KJ_IF_MAYBE (observer, kept) {
    // The program is gone, and a capability of a program that is gone answers nothing at all.
    auto answer = observer->proceedRequest().send().then([&](auto response) { mayProceed = response.getProceed(); },
                                                         [](kj::Exception&&) {});
    answer.exclusiveJoin(world.timer().afterDelay(500 * kj::MILLISECONDS)).wait(world.waitScope());
  }
  CHECK((kept != nullptr));
  CHECK(!mayProceed);
}

TEST_CASE("after --force-after QEMU is asked, and its word is the end") {
  CliWorld world;
  CHECK(world.run({"shutdown", "web1", "--force-after", "0.05"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: turned off by QEMU\n");
  CHECK((KJ_ASSERT_NONNULL(world.control.forcedReset) == false));
}

TEST_CASE("--force-after also ends a VM whose agent does not answer") {
  CliWorld world;
  world.session.behaviour.mode = Behaviour::Mode::SILENT;
  CHECK(world.run({"shutdown", "web1", "--force-after", "0.05"}) == ExitStatus::DONE);
  CHECK((world.control.forcedReset != nullptr));
}

TEST_CASE("--force-after also ends a VM that is not connected") {
  CliWorld world;
  world.control.offline.add(kj::str("web1"));
  CHECK(world.run({"shutdown", "web1", "--force-after", "1"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "QEMU does it next"));
}

TEST_CASE("--force-after does not override a denial") {
  CliWorld world;
  world.session.behaviour.mode = Behaviour::Mode::FAIL;
  world.session.behaviour.kind = hs::Failure::Kind::DENIED;
  CHECK(world.run({"shutdown", "web1", "--force-after", "20"}) == ExitStatus::DENIED);
  CHECK((world.control.forcedReset == nullptr));
}

TEST_CASE("a forced restart is over when the guest is back") {
  CliWorld world;
  world.session.gone = world.timer().afterDelay(150 * kj::MILLISECONDS);
  CHECK(world.run({"restart", "web1", "--force-after", "0.05"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "web1: accepted\nweb1: reset by QEMU\nweb1: back (goodbye)\n");
  CHECK((KJ_ASSERT_NONNULL(world.control.forcedReset) == true));
}

TEST_CASE("a guest that sends steps without end does not fill the caller's terminal or memory") {
  CliWorld world;
  world.session.power = [](Observer observer) {
    kj::Promise<void> all = kj::READY_NOW;
    for (unsigned i = 0; i < 3000; ++i) {
      all = all.then([observer]() mutable { return hook(observer, "again"); });
    }
    return all.then([observer]() mutable { return stopping(observer); });
  };
  CHECK(world.run({"shutdown", "web1"}) == ExitStatus::DONE);
  CHECK(world.output().size() < 30'000);
}

TEST_CASE("Ctrl-C ends the wait for several VMs at once") {
  CliWorld world;
  world.interruptAtOutput("web2: accepted");
  CHECK(world.run({"shutdown", "web1", "web2", "--wait"}) == ExitStatus::INTERRUPTED);
  CHECK_TEXT(world.errors(), "");
}
