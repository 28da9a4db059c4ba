#include <signal.h>
#include <sys/wait.h>

#include "guest-agent/broker/broker-wire.h"
#include "tests/unit/guest-agent/broker-fixture.h"
#include "transport/unix-socket.h"

namespace postern::guest::test {
namespace {

kj::String bytesText(kj::ArrayPtr<const kj::byte> bytes) {
  return kj::heapString(bytes.asChars());
}

TEST_CASE("a connection that the broker opened arrives at the agent with its kind, its peer and a live descriptor") {
  BrokerLab lab;
  int pair[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  kj::AutoCloseFd ours(pair[0]);
  kj::AutoCloseFd theirs(pair[1]);
  lab.connect = [&] {
    return kj::Promise<Connected>(
        Connection{TransportKind::VSOCK, DescriptorKind::SOCKET, VsockPeer{2, 9700}, kj::mv(theirs)});
  };
  auto client = lab.client();
  auto connected = lab.wait(client->connect());
  REQUIRE(connected.is<Connection>());
  auto& connection = connected.get<Connection>();
  CHECK(connection.transport == TransportKind::VSOCK);
  CHECK(connection.descriptorKind == DescriptorKind::SOCKET);
  REQUIRE(connection.peer.is<VsockPeer>());
  CHECK(connection.peer.get<VsockPeer>().port == 9700);
  CHECK(write(connection.fd, "x", 1) == 1);
  char byte = 0;
  CHECK(read(ours, &byte, 1) == 1);
  CHECK(byte == 'x');
  CHECK((fcntl(connection.fd, F_GETFD) & FD_CLOEXEC) != 0);
  connected = TransportError{};  // the agent's copy closes: the broker has kept none
  CHECK(read(ours, &byte, 1) == 0);
}

TEST_CASE("why there is no connection reaches the agent as one line") {
  BrokerLab lab;
  auto client = lab.client();
  auto connected = lab.wait(client->connect());
  REQUIRE(connected.is<TransportError>());
  CHECK((connected.get<TransportError>().text == "nothing to connect to"));
}

TEST_CASE("a dropped connect is cancelled in the broker, and the next one is served") {
  BrokerLab lab;
  unsigned cancelled = 0;
  lab.connect = [&] { return kj::Promise<Connected>(kj::NEVER_DONE).attach(kj::defer([&] { ++cancelled; })); };
  auto client = lab.client();
  for (int i = 0; i < 50; ++i) {
    auto dropped = client->connect();
    lab.turn(1 * kj::MILLISECONDS);
  }
  lab.turn();
  CHECK(cancelled == 50);
  lab.connect = [] { return kj::Promise<Connected>(TransportError{kj::str("served")}); };
  CHECK((lab.wait(client->connect()).get<TransportError>().text == "served"));
}

TEST_CASE("a probe's output comes back as it was written, and its name is the last argument") {
  BrokerLab lab(kj::arr(kj::str("/bin/echo"), kj::str("-n"), kj::str("--probe")));
  auto client = lab.client();
  auto result = lab.wait(client->probe(Probe::FILESYSTEMS, 5 * kj::SECONDS));
  REQUIRE(result.is<kj::Array<kj::byte>>());
  CHECK((bytesText(result.get<kj::Array<kj::byte>>()) == "--probe filesystems"));
}

TEST_CASE("a probe that hangs is timed out at its deadline, beside others that are not") {
  BrokerLab lab(shell("case $0 in network) sleep 60;; *) echo $0;; esac"));
  auto client = lab.client();
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto hanging = client->probe(Probe::NETWORK, 300 * kj::MILLISECONDS).eagerlyEvaluate(nullptr);
  CHECK((bytesText(lab.wait(client->probe(Probe::OS, 5 * kj::SECONDS)).get<kj::Array<kj::byte>>()) == "os\n"));
  CHECK(lab.wait(kj::mv(hanging)).is<ProbeTimedOut>());
  auto took = kj::systemPreciseMonotonicClock().now() - begin;
  CHECK(took >= 300 * kj::MILLISECONDS);
  CHECK(took < 5 * kj::SECONDS);
}

TEST_CASE("a probe that fails, is killed or cannot be started is refused with a line") {
  struct {
    kj::StringPtr script, words;
  } cases[] = {{"exit 3", "the probe failed with status 3"}, {"kill -SEGV $$", "the probe was killed by signal 11"}};
  for (auto& one : cases) {
    BrokerLab lab(shell(one.script));
    auto client = lab.client();
    auto result = lab.wait(client->probe(Probe::OS, 5 * kj::SECONDS));
    REQUIRE(result.is<BrokerRefusal>());
    CHECK((result.get<BrokerRefusal>().text == one.words));
  }
  BrokerLab lab(kj::arr(kj::str("/nonexistent/program")));
  auto client = lab.client();
  auto result = lab.wait(client->probe(Probe::OS, 5 * kj::SECONDS));
  REQUIRE(result.is<BrokerRefusal>());
  CHECK((result.get<BrokerRefusal>().text ==
         "cannot start /nonexistent/program: the program: No such file or directory"));
}

TEST_CASE("of a probe that floods its output 64 KiB arrive") {
  BrokerLab lab(shell("head -c 3000000 /dev/zero | tr '\\0' a"));
  auto client = lab.client();
  auto result = lab.wait(client->probe(Probe::OS, 10 * kj::SECONDS));
  REQUIRE(result.is<kj::Array<kj::byte>>());
  CHECK(result.get<kj::Array<kj::byte>>().size() == MAX_CHILD_OUTPUT);
}

TEST_CASE("more requests than the broker takes at one time wait at the agent's side, and all are answered") {
  BrokerLab lab(shell("sleep 0.05; echo $0"));
  auto client = lab.client();
  kj::Vector<kj::Promise<bool>> all;
  for (int i = 0; i < 40; ++i) {
    all.add(client->probe(Probe::USERS, 20 * kj::SECONDS).then([](auto result) {
      return result.template is<kj::Array<kj::byte>>();
    }));
  }
  for (bool arrived : lab.wait(kj::joinPromises(all.releaseAsArray()), 60 * kj::SECONDS)) CHECK(arrived);
}

TEST_CASE("users are told by the command's standard input") {
  BrokerLab lab;
  auto client = lab.client();
  lab.wait(client->tellUsers("going down\x1b[2J\nat noon"));
  char text[64]{};
  kj::AutoCloseFd fd(open(lab.folder.path("told").cStr(), O_RDONLY | O_CLOEXEC));
  REQUIRE(read(fd, text, sizeof(text) - 1) > 0);
  CHECK((kj::StringPtr(text) == "going down?[2J\nat noon\n"));
}

TEST_CASE("after a committed enrolment the broker is told, and its answer comes back") {
  BrokerLab lab;
  auto client = lab.client();
  CHECK(lab.wait(client->enrolled()));
  CHECK(lab.enrolledCalls == 1);
}

TEST_CASE("a broker that is gone fails every request, in progress and new, as disconnected") {
  BrokerLab lab(shell("sleep 60"));
  auto client = lab.client();
  auto inProgress = client->probe(Probe::OS, 20 * kj::SECONDS).eagerlyEvaluate(nullptr);
  lab.turn();
  lab.service = nullptr;
  auto isDisconnected = [&](auto promise) {
    return lab.wait(promise.then(
        [](auto&&) { return false; },
        [](kj::Exception&& exception) { return exception.getType() == kj::Exception::Type::DISCONNECTED; }));
  };
  CHECK(isDisconnected(kj::mv(inProgress)));
  CHECK(isDisconnected(client->connect()));
}

TEST_CASE("a client that is destroyed first fails what is still waited for, and nothing is left running") {
  BrokerLab lab(shell("exec sleep 60"));
  auto client = lab.client();
  auto inProgress = client->probe(Probe::OS, 20 * kj::SECONDS).eagerlyEvaluate(nullptr);
  lab.turn();
  client = nullptr;
  CHECK_THROWS(lab.wait(kj::mv(inProgress)));
  CHECK(lab.wait(kj::mv(lab.service)).is<AgentGone>());
}

}  // namespace
}  // namespace postern::guest::test
