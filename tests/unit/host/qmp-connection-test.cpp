#include "host/qmp/qmp-connection.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "tests/unit/host/qmp-fixture.h"
#include "transport/fd-pipe.h"

namespace postern::host {

namespace {

using test::FakeQemu;

struct Heard final : QmpConnection::Handler {
  size_t greetings = 0;
  size_t events = 0;
  void qmpGreeting() override { ++greetings; }
  void qmpHeard(const QmpEvent&) override { ++events; }
};

// A connection with the test at its other end, under a clock turned by hand.
struct Pair {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  Heard heard;
  kj::Maybe<FakeQemu> far;
  kj::Own<QmpConnection> connection;
  kj::Promise<kj::String> ended = nullptr;

  Pair() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    connection = kj::heap<QmpConnection>(timer, newSocketPipe(io.unixEventPort, kj::AutoCloseFd(fds[0])), heard);
    far.emplace(io.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(fds[1])), io.waitScope);
    ended = connection->run();
  }
  FakeQemu& qemu() { return KJ_ASSERT_NONNULL(far); }
  void turn(kj::Duration time) {
    settle();
    timer.advanceTo(timer.now() + time);
    settle();
  }
  // All that is under way in the sockets.
  void settle() {
    for (int i = 0; i < 20; ++i) {
      io.waitScope.poll();
      io.provider->getTimer().afterDelay(0 * kj::SECONDS).wait(io.waitScope);
    }
  }
  kj::String end() { return ended.wait(io.waitScope); }
};

kj::String textOf(QmpConnection::Reply reply) {
  KJ_SWITCH_ONEOF(reply) {
    KJ_CASE_ONEOF(answer, QmpAnswer) {
      KJ_IF_MAYBE (error, answer.error) return kj::str("error ", *error);
      return kj::str("done");
    }
    KJ_CASE_ONEOF(none, QmpConnection::NoAnswer) return kj::mv(none.why);
    KJ_CASE_ONEOF(ended, QmpConnection::Ended) return kj::str("ended");
  }
  KJ_UNREACHABLE;
}

}  // namespace

TEST_CASE("answers find their commands by number, in whatever order they come") {
  Pair pair;
  pair.qemu().greet();
  auto first = pair.connection->command("stop");
  auto second = pair.connection->command("cont");
  CHECK((pair.qemu().line() == "{\"execute\":\"stop\",\"id\":1}"));
  CHECK((pair.qemu().line() == "{\"execute\":\"cont\",\"id\":2}"));
  pair.qemu().send("{\"error\":{\"desc\":\"no\"},\"id\":2}\r\n{\"return\":{},\"id\":1}\r\n");
  CHECK((textOf(first.wait(pair.io.waitScope)) == "done"));
  CHECK((textOf(second.wait(pair.io.waitScope)) == "error no"));
  CHECK(pair.heard.greetings == 1);
}

TEST_CASE("an answer is heard before the event behind it is told, though one read found both") {
  Pair pair;
  pair.qemu().greet();
  size_t eventsThen = 99;
  auto answered = pair.connection->command("query-status")
                      .then([&](QmpConnection::Reply) { return kj::evalLater([] {}); })
                      .then([&] { eventsThen = pair.heard.events; })
                      .eagerlyEvaluate(nullptr);
  pair.qemu().answer("query-status", "{}", FakeQemu::event("STOP"));
  pair.settle();
  CHECK(eventsThen == 0);
  CHECK(pair.heard.events == 1);
}

TEST_CASE("a command that is not answered in time is not, and its late answer is no fault") {
  Pair pair;
  pair.qemu().greet();
  auto reply = pair.connection->command("system_reset");
  pair.turn(QMP_ANSWER_DEADLINE - 1 * kj::MILLISECONDS);
  CHECK_FALSE(reply.poll(pair.io.waitScope));
  pair.turn(1 * kj::MILLISECONDS);
  CHECK((textOf(reply.wait(pair.io.waitScope)) == "QEMU did not answer system_reset within 5 s"));
  pair.qemu().answer("system_reset", "{}");
  pair.settle();
  CHECK_FALSE(pair.ended.poll(pair.io.waitScope));
  auto next = pair.connection->command("stop");
  pair.qemu().answer("stop", "{}");
  CHECK((textOf(next.wait(pair.io.waitScope)) == "done"));
}

TEST_CASE("only so many commands are outstanding; those given up do not count") {
  Pair pair;
  pair.qemu().greet();
  kj::Vector<kj::Promise<QmpConnection::Reply>> replies;
  for (size_t i = 0; i < MAX_QMP_COMMANDS; ++i) replies.add(pair.connection->command("stop"));
  CHECK((textOf(pair.connection->command("stop").wait(pair.io.waitScope)) ==
         "QEMU has left earlier commands unanswered"));
  replies.clear();
  auto reply = pair.connection->command("cont");
  for (size_t i = 0; i < MAX_QMP_COMMANDS; ++i) pair.qemu().answer("stop", "{}");
  pair.qemu().answer("cont", "{}");
  CHECK((textOf(reply.wait(pair.io.waitScope)) == "done"));
}

TEST_CASE("QEMU that does not read costs no more than a few commands' memory") {
  Pair pair;
  pair.qemu().greet();
  size_t accepted = 0;
  while (accepted < 100000) {
    auto reply = pair.connection->command("system_reset");
    if (reply.poll(pair.io.waitScope)) break;  // refused at once
    ++accepted;
  }
  CHECK(accepted < 100000);
  pair.settle();
  // And what was left goes out once it reads.
  for (size_t i = 0; i < accepted; ++i) REQUIRE(pair.qemu().line().startsWith("{\"execute\":\"system_reset\""));
}

TEST_CASE("an answer to what was never asked ends the connection") {
  for (auto id : {"0", "2", "9007199254740991"}) {
    CAPTURE(id);
    Pair pair;
    pair.qemu().greet();
    auto reply = pair.connection->command("stop");
    pair.qemu().send(kj::str("{\"return\": {}, \"id\": ", id, "}\r\n"));
    CHECK((pair.end() == "QEMU answered what was not asked"));
    CHECK((textOf(reply.wait(pair.io.waitScope)) == "QEMU answered what was not asked"));
  }
}

TEST_CASE("whatever is no QMP ends the connection, and says why") {
  auto million = kj::heapString(1 << 20);
  for (char& c : million) c = 'x';
  auto longLine = kj::str("{\"event\": \"", million, "\"}\r\n");
  struct {
    kj::StringPtr sent;
    kj::StringPtr why;
  } cases[] = {
      {"hello\r\n"_kj, "QEMU sent a line that is no JSON, or nested too deeply"_kj},
      {"\r\n"_kj, "QEMU sent a line that is no JSON, or nested too deeply"_kj},
      {"{\"return\": {}, \"id\": 1}\r\n"_kj, "QEMU did not begin with its greeting"_kj},
      {"{\"event\": \"STOP\"}\r\n"_kj, "QEMU did not begin with its greeting"_kj},
      {longLine, "QEMU sent a line of more than 65536 bytes"_kj},
      {""_kj, "it was closed without a greeting"_kj},
      {"{\"QMP\""_kj, "it was closed without a greeting"_kj},
  };
  for (auto& each : cases) {
    CAPTURE(each.why.cStr());
    Pair pair;
    pair.qemu().send(each.sent);
    pair.far = nullptr;
    CHECK((pair.end() == each.why));
  }
  Pair twice;
  twice.qemu().greet();
  twice.qemu().greet();
  CHECK((twice.end() == "QEMU greeted a second time"));
}

TEST_CASE("a line that is not finished in time ends the connection, even if it grows") {
  Pair pair;
  pair.qemu().greet();
  pair.qemu().send("{\"event\"");
  for (int i = 0; i < 4; ++i) {
    pair.turn(1 * kj::SECONDS);
    pair.qemu().send(" ");
  }
  CHECK_FALSE(pair.ended.poll(pair.io.waitScope));
  pair.turn(1 * kj::SECONDS);
  CHECK((pair.end() == "QEMU stopped in the middle of a line"));
}

TEST_CASE("a connection that says nothing is left in peace") {
  Pair pair;
  pair.qemu().greet();
  pair.turn(10 * kj::DAYS);
  pair.qemu().send(FakeQemu::event("STOP"));
  pair.settle();
  CHECK(pair.heard.events == 1);
  CHECK_FALSE(pair.ended.poll(pair.io.waitScope));
}

TEST_CASE("commands under way learn that QEMU closed, and later ones that it has") {
  Pair pair;
  pair.qemu().greet();
  auto reply = pair.connection->command("quit");
  pair.settle();
  pair.far = nullptr;
  CHECK((pair.end() == "QEMU closed it"));
  CHECK((textOf(reply.wait(pair.io.waitScope)) == "ended"));
  CHECK((textOf(pair.connection->command("quit").wait(pair.io.waitScope)) == "QEMU closed it"));
}

TEST_CASE("a command outlives its connection and says so") {
  Pair pair;
  pair.qemu().greet();
  auto reply = pair.connection->command("quit");
  pair.ended = nullptr;
  pair.connection = nullptr;
  CHECK((textOf(reply.wait(pair.io.waitScope)) == "its connection to QEMU was ended"));
}

TEST_CASE("a flood of events leaves the loop to others") {
  Pair pair;
  pair.io.waitScope.setBusyPollInterval(10);  // as the programs do
  pair.qemu().greet();
  pair.settle();
  kj::Vector<char> flood;
  while (flood.size() < 150000) flood.addAll(FakeQemu::event("STOP"));
  flood.add('\0');
  auto text = kj::String(flood.releaseAsArray());
  // What somebody else's short timer finds when it fires.
  size_t heardThen = 0;
  auto other = kj::evalLater([&] {
                 return pair.io.provider->getTimer().afterDelay(1 * kj::MICROSECONDS);
               }).then([&] {
                   heardThen = pair.heard.events;
                 }).eagerlyEvaluate(nullptr);
  pair.qemu().send(text);
  CHECK(pair.io.provider->getTimer()
            .timeoutAfter(20 * kj::SECONDS, kj::mv(other))
            .then([] { return true; }, [](kj::Exception&&) { return false; })
            .wait(pair.io.waitScope));
  for (int i = 0; i < 2000 && pair.heard.events < 1000; ++i) {
    pair.io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(pair.io.waitScope);
  }
  CHECK(pair.heard.events > 1000);
  CHECK(heardThen < 1000);
}

}  // namespace postern::host
