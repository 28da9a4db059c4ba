#include "host/qmp/qmp-watch.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "host/qmp/qmp-vm-state.h"
#include "tests/unit/host/qmp-fixture.h"

namespace postern::host {

using test::FakeQemu;
using test::QmpLab;

namespace {

// Connected, with this status told.
struct Connected {
  QmpLab lab;
  kj::Own<kj::ConnectionReceiver> receiver = lab.listen();
  kj::Own<QmpWatch> watch = lab.watch();
  kj::Maybe<FakeQemu> far;

  explicit Connected(kj::StringPtr status = "running"_kj) {
    far.emplace(lab.accept(*receiver));
    qemu().open(status);
    REQUIRE(lab.hasTold(status == "running" || status == "suspended" ? 1 : 2));
  }
  FakeQemu& qemu() { return KJ_ASSERT_NONNULL(far); }
};

}  // namespace

TEST_CASE("qmp: a connected watch says so, and what the status says beyond `running`") {
  CHECK((Connected("running").lab.told.all() == "connected"));
  CHECK((Connected("suspended").lab.told.all() == "connected"));
  CHECK((Connected("paused").lab.told.all() == "connected | STOP"));
  CHECK((Connected("prelaunch").lab.told.all() == "connected | STOP"));
  CHECK((Connected("io-error").lab.told.all() == "connected | STOP"));
  CHECK((Connected("shutdown").lab.told.all() == "connected | SHUTDOWN"));
}

TEST_CASE("qmp: events are told in order, and those of others not at all") {
  Connected c;
  auto port = [](kj::StringPtr id, bool open) {
    return FakeQemu::event("VSERPORT_CHANGE", kj::str("{\"open\": ", open, ", \"id\": \"", id, "\"}"));
  };
  c.qemu().send(kj::str(port("org.postern.agent.0", true), port("org.qemu.guest_agent.0", false),
                        FakeQemu::event("STOP"), FakeQemu::event("SUSPEND"), FakeQemu::event("RTC_CHANGE"),
                        FakeQemu::event("RESUME"), FakeQemu::event("RESET", "{\"guest\": true}"),
                        port("web1-org.postern.agent.0", false), FakeQemu::event("SHUTDOWN"), FakeQemu::event("STOP")));
  REQUIRE(c.lab.hasTold(7));
  c.lab.pass(20 * kj::MILLISECONDS);
  CHECK((c.lab.told.all() == "connected | PORT_OPENED | STOP | RESUME | RESET | PORT_CLOSED | SHUTDOWN"));
  CHECK(c.watch->isConnected());
}

TEST_CASE("qmp: a pause that ended unseen is ended") {
  Connected c("paused");
  c.far = nullptr;
  auto second = c.lab.accept(*c.receiver);
  second.open("running");
  REQUIRE(c.lab.hasTold(5));
  CHECK((c.lab.told.all() == "connected | STOP | lost: QEMU closed it | connected | RESUME"));
}

TEST_CASE("qmp: a pause that lasts beyond a loss is not told twice") {
  Connected c("paused");
  c.far = nullptr;
  auto again = c.lab.accept(*c.receiver);
  again.open("paused");
  REQUIRE(c.lab.hasTold(4));
  c.lab.pass(20 * kj::MILLISECONDS);
  CHECK((c.lab.told.all() == "connected | STOP | lost: QEMU closed it | connected"));
}

TEST_CASE("qmp: an event between the two answers is not undone by the older status") {
  QmpLab lab;
  auto receiver = lab.listen();
  auto watch = lab.watch();
  auto qemu = lab.accept(*receiver);
  qemu.greet();
  qemu.answer("qmp_capabilities", "{}");
  // One piece: the status, and behind it the pause.
  qemu.answer("query-status", FakeQemu::statusOf("running"), FakeQemu::event("STOP"));
  REQUIRE(lab.hasTold(2));
  lab.pass(20 * kj::MILLISECONDS);
  CHECK((lab.told.all() == "connected | STOP"));
}

TEST_CASE("qmp: a watch without a QEMU says so once, and finds one that comes later") {
  QmpLab lab;
  auto watch = lab.watch();
  lab.pass(700 * kj::MILLISECONDS);  // several attempts
  CHECK((lab.told.all() == kj::str("lost: cannot connect to ", lab.path,
                                   ": there is no such socket; is the program that makes it running?")));
  CHECK_FALSE(watch->isConnected());
  auto refused = watch->force(true).wait(lab.io.waitScope);
  CHECK(KJ_ASSERT_NONNULL(refused).startsWith("QMP socket "));
  auto receiver = lab.listen();
  auto qemu = lab.accept(*receiver);
  qemu.open();
  REQUIRE(lab.hasTold(2));
  CHECK((lab.told.told[1] == "connected"));
}

TEST_CASE("qmp: a path that no socket can have is a loss, not a crash") {
  QmpLab lab;
  auto longName = kj::heapString(200);
  for (char& c : longName) c = 'a';
  lab.path = kj::str("/", longName);
  auto watch = lab.watch();
  REQUIRE(lab.hasTold(1));
  CHECK(lab.told.told[0].endsWith("too long for a socket's path"));
}

TEST_CASE("qmp: somebody else's socket is waited for on one connection") {
  QmpLab lab;
  auto receiver = lab.listen();
  auto watch = lab.watch();
  auto qemu = lab.accept(*receiver);  // and never greets
  bool another = false;
  auto second = receiver->accept().then([&](kj::Own<kj::AsyncIoStream>) { another = true; }).eagerlyEvaluate(nullptr);
  lab.pass(QMP_ANSWER_DEADLINE - 1 * kj::SECONDS);
  CHECK(lab.told.told.size() == 0);
  REQUIRE(lab.hasTold(1));
  CHECK(lab.told.told[0].startsWith("lost: another program uses it"));
  lab.pass(2 * kj::SECONDS);
  CHECK(lab.told.told.size() == 1);
  CHECK_FALSE(another);
  CHECK_FALSE(watch->isConnected());
  // The other has left.
  qemu.open("paused");
  REQUIRE(lab.hasTold(3));
  CHECK((kj::strArray(lab.told.told.asPtr().slice(1, 3), " | ") == "connected | STOP"));
}

TEST_CASE("qmp: a QEMU that greets and answers late is waited for on one connection, and told as lost once") {
  QmpLab lab;
  auto receiver = lab.listen();
  auto watch = lab.watch();
  auto qemu = lab.accept(*receiver);
  bool another = false;
  auto second = receiver->accept().then([&](kj::Own<kj::AsyncIoStream>) { another = true; }).eagerlyEvaluate(nullptr);
  qemu.greet();
  REQUIRE(lab.hasTold(1));
  CHECK((lab.told.all() == "lost: QEMU has greeted and does not answer yet: it is starting, or it hangs"));
  auto refused = watch->force(false).wait(lab.io.waitScope);
  CHECK(KJ_ASSERT_NONNULL(refused).endsWith("it is starting, or it hangs"));
  lab.pass(1 * kj::SECONDS);
  qemu.answer("qmp_capabilities", "{}");
  REQUIRE(lab.hasTold(2));
  // What it says before it answers the next one counts.
  lab.pass(QMP_ANSWER_DEADLINE + 500 * kj::MILLISECONDS);
  qemu.send(FakeQemu::event("RESUME"));
  qemu.answer("query-status", FakeQemu::statusOf("running"), FakeQemu::event("STOP"));
  REQUIRE(lab.hasTold(4));
  CHECK((kj::strArray(lab.told.told.asPtr().slice(1, 4), " | ") == "connected | RESUME | STOP"));
  CHECK_FALSE(another);
}

TEST_CASE("qmp: garbage ends the connection and is retried with a growing pause") {
  Connected c;
  c.qemu().send("\x01\x02 garbage\r\n");
  size_t connections = 0;
  auto& timer = c.lab.io.provider->getTimer();
  auto start = timer.now();
  while (timer.now() - start < 2500 * kj::MILLISECONDS) {
    auto next = c.receiver->accept()
                    .then([](kj::Own<kj::AsyncIoStream> stream) -> kj::Maybe<kj::Own<kj::AsyncIoStream>> {
                      return kj::mv(stream);
                    })
                    .exclusiveJoin(timer.atTime(start + 2500 * kj::MILLISECONDS)
                                       .then([]() -> kj::Maybe<kj::Own<kj::AsyncIoStream>> { return nullptr; }))
                    .wait(c.lab.io.waitScope);
    KJ_IF_MAYBE (stream, next) {
      ++connections;
      FakeQemu qemu(kj::mv(*stream), c.lab.io.waitScope);
      qemu.open();
      qemu.send("garbage\r\n");
    }
  }
  // 0.1-0.2 s, 0.2-0.4 s, 0.4-0.8 s, 0.8-1.6 s.
  CHECK(connections >= 2);
  CHECK(connections <= 5);
  CHECK(c.lab.told.count("lost: QEMU sent a line that is no JSON") >= 2);
}

TEST_CASE("qmp: a QEMU that closes in the middle of anything is lost once, and connected to again") {
  auto exchange =
      kj::str(test::QMP_GREETING, "{\"return\": {}, \"id\": 1}\r\n{\"return\": ", FakeQemu::statusOf("paused"),
              ", \"id\": 2}\r\n", FakeQemu::event("RESUME"));
  for (size_t size = 0; size <= exchange.size(); size += 3) {
    CAPTURE(size);
    QmpLab lab;
    auto receiver = lab.listen();
    auto watch = lab.watch();
    {
      auto qemu = lab.accept(*receiver);
      // As fast as the commands come, for an answer to what was not asked is a fault.
      size_t sent = 0;
      for (size_t end = 0; sent < size; ++end) {
        if (end < exchange.size() && exchange[end] != '\n' && end + 1 < size) continue;
        auto piece = kj::heapString(exchange.slice(sent, kj::min(end + 1, size)));
        if (sent > 0 && exchange.slice(sent).startsWith("{\"return\"")) qemu.line();
        qemu.send(piece);
        sent += piece.size();
      }
    }
    auto second = lab.accept(*receiver);
    CHECK(lab.told.count("lost: ") == 1);
    CHECK(lab.told.count("connected") <= 1);
    second.open();
    bool seen = lab.until([&] { return watch->isConnected(); });
    CHECK(seen);
  }
}

TEST_CASE("qmp: a QEMU that refuses or does not know its commands is lost with its own words") {
  QmpLab lab;
  auto receiver = lab.listen();
  auto watch = lab.watch();
  {
    auto qemu = lab.accept(*receiver);
    qemu.greet();
    qemu.refuse("not\\u0007 today");
    REQUIRE(lab.hasTold(1));
  }
  CHECK((lab.told.told[0] == "lost: QEMU refused qmp_capabilities: not? today"));
  {
    auto qemu = lab.accept(*receiver);
    qemu.greet();
    qemu.answer("qmp_capabilities", "{}");
    qemu.answer("query-status", "{}");
    REQUIRE(lab.hasTold(3));
  }
  CHECK((lab.told.told[2] == "lost: QEMU answered query-status without a status"));
}

TEST_CASE("qmp: a QEMU that is gone without a word has shut down, once nobody listens") {
  for (bool unlinked : {false, true}) {
    CAPTURE(unlinked);
    Connected c;
    auto off = c.watch->whenOff(false);
    auto reset = c.watch->whenOff(true);
    c.receiver = nullptr;
    if (unlinked) {
      ::unlink(c.lab.path.cStr());
    }
    c.far = nullptr;
    REQUIRE(c.lab.hasTold(3));
    CHECK((c.lab.told.all() == "connected | lost: QEMU closed it | SHUTDOWN"));
    CHECK((off.wait(c.lab.io.waitScope) == "QEMU has ended"));
    CHECK_FALSE(reset.poll(c.lab.io.waitScope));
    c.lab.pass(500 * kj::MILLISECONDS);
    CHECK(c.lab.told.told.size() == 3);
    CHECK((c.watch->whenOff(false).wait(c.lab.io.waitScope) == "QEMU has ended"));
  }
}

TEST_CASE("qmp: a QEMU that said SHUTDOWN and went is one shutdown") {
  Connected c;
  auto off = c.watch->whenOff(false);
  c.qemu().send(FakeQemu::event("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shut\\ndown\"}"));
  CHECK((off.wait(c.lab.io.waitScope) == "QEMU says SHUTDOWN: guest-shut?down, by the guest"));
  c.receiver = nullptr;
  c.far = nullptr;
  REQUIRE(c.lab.hasTold(3));
  c.lab.pass(500 * kj::MILLISECONDS);
  CHECK((c.lab.told.all() == "connected | SHUTDOWN | lost: QEMU closed it"));
}

TEST_CASE("qmp: a closed connection to a socket that is still served is no shutdown") {
  Connected c;
  auto off = c.watch->whenOff(false);
  c.far = nullptr;
  auto second = c.lab.accept(*c.receiver);
  second.open();
  REQUIRE(c.lab.hasTold(3));
  CHECK((c.lab.told.all() == "connected | lost: QEMU closed it | connected"));
  CHECK_FALSE(off.poll(c.lab.io.waitScope));
}

TEST_CASE("qmp: a reset is waited for apart from a shutdown, and one that ends QEMU is one") {
  Connected c;
  auto off = c.watch->whenOff(false);
  auto reset = c.watch->whenOff(true);
  c.qemu().send(FakeQemu::event("RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}"));
  CHECK((reset.wait(c.lab.io.waitScope) == "QEMU says RESET: host-qmp-system-reset, by the host"));
  CHECK_FALSE(off.poll(c.lab.io.waitScope));

  auto next = c.watch->whenOff(true);
  c.qemu().send(FakeQemu::event("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-reset\"}"));
  CHECK((next.wait(c.lab.io.waitScope) == "QEMU says SHUTDOWN: guest-reset, by the guest"));
  CHECK((off.wait(c.lab.io.waitScope) == "QEMU says SHUTDOWN: guest-reset, by the guest"));
}

TEST_CASE("qmp: a reset that QEMU says several times is told once, and whoever waits for one hears each") {
  Connected c;
  auto reset = [&] { c.qemu().send(FakeQemu::event("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}")); };
  auto first = c.watch->whenOff(true);
  reset();
  first.wait(c.lab.io.waitScope);
  auto second = c.watch->whenOff(true);
  reset();
  reset();
  second.wait(c.lab.io.waitScope);
  c.lab.pass(20 * kj::MILLISECONDS);
  CHECK((c.lab.told.all() == "connected | RESET"));
  c.lab.pass(ONE_RESET);
  reset();
  REQUIRE(c.lab.hasTold(3));
  CHECK((c.lab.told.all() == "connected | RESET | RESET"));
}

TEST_CASE("qmp: a reset of a guest that has come back since the last one is told, however soon") {
  Connected c;
  auto reset = [&] { c.qemu().send(FakeQemu::event("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}")); };
  reset();
  REQUIRE(c.lab.hasTold(2));
  c.qemu().send(FakeQemu::event("VSERPORT_CHANGE", "{\"open\": true, \"id\": \"org.postern.agent.0\"}"));
  reset();
  REQUIRE(c.lab.hasTold(4));
  CHECK((c.lab.told.all() == "connected | RESET | PORT_OPENED | RESET"));
}

TEST_CASE("qmp: force sends system_reset or quit and gives QEMU's answer") {
  Connected c;
  auto reset = c.watch->force(true);
  c.qemu().answer("system_reset", "{}");
  CHECK(reset.wait(c.lab.io.waitScope) == nullptr);
  auto refused = c.watch->force(true);
  c.qemu().refuse("migrating");
  CHECK((KJ_ASSERT_NONNULL(refused.wait(c.lab.io.waitScope)) == "QEMU refused system_reset: migrating"));
  auto quit = c.watch->force(false);
  c.qemu().answer("quit", "{}");
  CHECK(quit.wait(c.lab.io.waitScope) == nullptr);
}

TEST_CASE("qmp: an end counts as the answer to quit") {
  Connected c;
  auto quit = c.watch->force(false);
  CHECK(c.qemu().line().startsWith("{\"execute\":\"quit\""));
  c.far = nullptr;
  CHECK(quit.wait(c.lab.io.waitScope) == nullptr);
}

TEST_CASE("qmp: an end is no answer to system_reset") {
  Connected c;
  auto reset = c.watch->force(true);
  c.qemu().line();
  c.far = nullptr;
  CHECK((KJ_ASSERT_NONNULL(reset.wait(c.lab.io.waitScope)) ==
         "QEMU closed its QMP socket before it answered system_reset"));
}

TEST_CASE("qmp: garbage is no answer to quit") {
  Connected c;
  auto quit = c.watch->force(false);
  c.qemu().line();
  c.qemu().send("?\r\n");
  CHECK((KJ_ASSERT_NONNULL(quit.wait(c.lab.io.waitScope)) == "QEMU sent a line that is no JSON, or nested too deeply"));
}

TEST_CASE("qmp: a greeting that came before anybody read is heard, wherever it is spoken") {
  QmpLab lab;
  int ends[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
  kj::AutoCloseFd theirs(ends[1]);
  FakeQemu qemu(lab.io.lowLevelProvider->wrapSocketFd(ends[0], kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP),
                lab.io.waitScope);
  qemu.greet();
  auto connect = [&theirs]() -> kj::Promise<postern::Connected> {
    return postern::Connected(Connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(theirs)});
  };
  auto watch = newQmpWatch(lab.io.unixEventPort, {kj::str("a place"), kj::mv(connect)}, lab.random, lab.told);
  qemu.answer("qmp_capabilities", "{}");
  qemu.answer("query-status", FakeQemu::statusOf("paused"));
  REQUIRE(lab.hasTold(2));
  CHECK((lab.told.all() == "connected | STOP"));
}

TEST_CASE("qmp: a watch can be dropped at any moment") {
  for (int moment = 0; moment < 6; ++moment) {
    CAPTURE(moment);
    QmpLab lab;
    auto receiver = lab.listen();
    auto watch = lab.watch();
    kj::Maybe<FakeQemu> qemu;
    if (moment > 0) qemu.emplace(lab.accept(*receiver));
    KJ_IF_MAYBE (q, qemu) {
      if (moment > 1) q->greet();
      if (moment > 2) q->answer("qmp_capabilities", "{}");
      if (moment > 3) q->answer("query-status", FakeQemu::statusOf("running"));
    }
    if (moment > 3) REQUIRE(lab.hasTold(1));
    auto off = watch->whenOff(false);
    auto quit = watch->force(false);
    if (moment > 4) qemu = nullptr;
    auto told = lab.told.told.size();
    watch = nullptr;
    lab.pass(20 * kj::MILLISECONDS);
    CHECK(lab.told.told.size() == told);
    // Neither hangs, and neither says that it is done.
    CHECK(quit.wait(lab.io.waitScope) != nullptr);
    CHECK(off.then([](kj::String) { return false; }, [](kj::Exception&&) { return true; }).wait(lab.io.waitScope));
  }
}

}  // namespace postern::host
