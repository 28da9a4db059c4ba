// What the broker does for OpenService: real targets, real programs.

#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/guest-agent/service-stage.h"

namespace postern::guest::test {
namespace {

constexpr kj::StringPtr ALL = R"(
[[allow]]
id = "all"
call = ["service.*"]
[[allow]]
id = "vm"
from = "web1"
call = ["service.*"]
)"_kj;

// The user whom this process runs as, written as a service's key.
kj::String asMe() {
  return kj::str("user = \"", getpwuid(geteuid())->pw_name, "\"\n");
}

kj::String program(kj::StringPtr script) {
  return kj::str("[service.program]\n", asMe(), "target = [\"/bin/sh\", \"-c\", '", script,
                 "', \"name\", \"two words\"]\n");
}

bool isGone(pid_t pid) {
  return kill(pid, 0) < 0;
}

struct Programs : ServiceStage {
  explicit Programs(kj::StringPtr script) : ServiceStage(ALL, program(script)), calls(callsFor("alice")) {}

  schema::GuestCalls::Client calls;
  kj::String said;  // behind the last line
  // A line of its own, which may come together with the next one.
  pid_t pidOf(BulkChannel& channel) {
    while (said.findFirst('\n') == nullptr) said = kj::str(said, receive(channel, 1));
    auto end = KJ_ASSERT_NONNULL(said.findFirst('\n'));
    auto pid = pid_t(atoi(said.cStr()));
    said = kj::str(said.slice(end + 1));
    return pid;
  }
  bool goes(pid_t pid, kj::Duration within) {
    for (auto end = port.getTimer().now() + within; port.getTimer().now() < end; turn()) {
      if (isGone(pid)) return true;
    }
    return isGone(pid);
  }
};

// T100
TEST_CASE(
    "a program gets its arguments as they are, an environment of its own, and the channel as its input and output") {
  Programs stage("echo \"$0|$1|$#\"; env | sort; ls /proc/self/fd | wc -l; read -r line; echo \"got $line\"");
  auto channel = stage.reach(stage.calls, "program");
  stage.send(*channel, "a line\n");
  auto said = stage.receive(*channel);
  CHECK(said.startsWith("name|two words|1\n"));
  CHECK(strstr(said.cStr(), "POSTERN_PEER=user:alice\n") != nullptr);
  CHECK(strstr(said.cStr(), "POSTERN_SERVICE=program\n") != nullptr);
  CHECK(strstr(said.cStr(), "PATH=/usr/local/sbin:") != nullptr);
  CHECK(strstr(said.cStr(), "HOME=") == nullptr);
  CHECK(said.endsWith("got a line\n"));
  // What is behind its end is nobody's; that the channel is over is told when the host has nothing more to say.
  channel->finish();
  CHECK(stage.settlesAt(0));
}

TEST_CASE("a program is told of a VM, and not of a user's groups") {
  Programs stage("echo $POSTERN_PEER");
  auto vm = stage.callsForVm("web1");
  CHECK((stage.receive(*stage.reach(vm, "program")) == "vm:web1\n"));
  auto request = stage.hostRpc->peer().castAs<schema::Guest>().callsForRequest();
  auto user = request.initCaller().initUser();
  user.setName("bob");
  user.initGroups(1).set(0, "ops");
  auto bob = request.send().getCalls();
  CHECK((stage.receive(*stage.reach(bob, "program")) == "user:bob\n"));
}

TEST_CASE("a program may send on behind the end of what it got") {
  Programs stage("cat > /dev/null; echo all read");
  auto channel = stage.reach(stage.calls, "program");
  stage.send(*channel, "much");
  channel->finish();
  CHECK((stage.receive(*channel) == "all read\n"));
}

// T99
TEST_CASE("a program that looks who is at the other end of its standard input sees its own user") {
  if (geteuid() != 0) return;
  auto* daemon = getpwnam("daemon");
  REQUIRE(daemon != nullptr);
  ServiceStage stage(ALL, "[service.program]\nuser = \"daemon\"\ntarget = [\"/bin/cat\"]\n");
  auto opened = stage.wait(stage.brokerClient->openService("program", "user:alice"));
  ucred peer{};
  socklen_t size = sizeof(peer);
  // Of a socket pair both ends see the same.
  REQUIRE(getsockopt(opened.get<OpenedService>().socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0);
  CHECK(peer.uid == daemon->pw_uid);
  CHECK(peer.gid == daemon->pw_gid);
}

// T94
TEST_CASE("all that a program said before it ended arrives, whatever it left unread") {
  Programs stage("head -c 1 > /dev/null; seq 1 100000");
  auto channel = stage.reach(stage.calls, "program");
  auto flood = kj::heapArray<char>(size_t(1) << 20);
  memset(flood.begin(), 'x', flood.size());
  auto sending = channel->write(flood.asBytes()).eagerlyEvaluate(nullptr);
  auto said = stage.receive(*channel);
  CHECK(said.size() == 588895);
  CHECK(said.endsWith("\n100000\n"));
  CHECK(stage.wait(channel->whenBroken()) == BulkEnd::RESET);
}

TEST_CASE("a program that cannot be started is a failure that says why") {
  ServiceStage stage(ALL, kj::str("[service.program]\n", asMe(), "target = [\"/nonexistent/program\"]\n"));
  CHECK(stage.refusalOf(stage.callsFor("alice"), "program")
            .startsWith("failed: service 'program' was not reached: cannot start /nonexistent/program"));
}

// T100
TEST_CASE("a program that reads its input ends at once with its channel, and one that does not after its grace") {
  Programs stage("echo $$; read -r line || exit 0; trap \"\" HUP PIPE; while :; do sleep 0.2; done");
  auto reader = stage.reach(stage.calls, "program");
  auto deaf = stage.reach(stage.calls, "program");
  pid_t readerPid = stage.pidOf(*reader), deafPid = stage.pidOf(*deaf);
  stage.send(*deaf, "go\n");
  reader->reset();
  CHECK(stage.goes(readerPid, 3 * kj::SECONDS));
  deaf->reset();
  stage.turn(1 * kj::SECONDS);
  CHECK_FALSE(isGone(deafPid));
  CHECK(stage.goes(deafPid, 20 * kj::SECONDS));
}

TEST_CASE("what a program started ends with it, but for what has left its process group") {
  Programs stage("sleep 60 & echo $!; setsid sh -c \"echo \\$\\$; exec sleep 60\" & read -r line");
  auto channel = stage.reach(stage.calls, "program");
  pid_t inGroup = stage.pidOf(*channel), outside = stage.pidOf(*channel);
  channel->reset();
  CHECK(stage.goes(inGroup, 20 * kj::SECONDS));
  CHECK_FALSE(isGone(outside));
  kill(outside, SIGKILL);
}

// T100
TEST_CASE("a reload that forbids a program's service ends the program, and one that does not leaves it") {
  auto script = "echo $$; exec sleep 60"_kj;
  Programs stage(script);
  auto channel = stage.reach(stage.calls, "program");
  pid_t pid = stage.pidOf(*channel);
  stage.reload(ALL, kj::str(program(script), "[service.more]\ntarget = \"tcp:127.0.0.1:1\"\n"));
  stage.turn(200 * kj::MILLISECONDS);
  CHECK_FALSE(isGone(pid));
  stage.reload("", program(script));
  CHECK(stage.endOf(*channel) == BulkEnd::RESET);
  CHECK(stage.goes(pid, 20 * kj::SECONDS));
}

// T100
TEST_CASE("a program ends though an agent that was taken over keeps its channel, when a reload forbids it") {
  ServiceStage stage(ALL, program("echo $$; exec sleep 60"));
  auto opened = stage.wait(stage.brokerClient->openService("program", "user:alice"));
  auto& service = opened.get<OpenedService>();
  REQUIRE(service.program.get() != nullptr);
  stage.turn(300 * kj::MILLISECONDS);
  char text[16] = {};
  REQUIRE(recv(service.socket, text, sizeof(text) - 1, 0) > 0);
  auto pid = pid_t(atoi(text));
  CHECK_FALSE(isGone(pid));
  stage.policy = GuestPolicy::denyAll();
  stage.broker->configurationChanged();
  for (int i = 0; i < 1000 && !isGone(pid); ++i) stage.turn();
  CHECK(isGone(pid));
}

TEST_CASE("as many programs as may run, run, and one more is refused as busy") {
  Programs stage("exec sleep 60");
  kj::Vector<kj::Own<BulkChannel>> open;
  for (size_t i = 0; i < MAX_SERVICE_PROGRAMS; ++i) open.add(stage.reach(stage.calls, "program"));
  CHECK(stage.refusalOf(stage.calls, "program").startsWith("busy: "));
}

// Connections ----------------------------------------------------------------------------------------------------

TEST_CASE("a target that wants it gets a PROXY header that says who connects, before anything else") {
  PlainTarget tcp;
  postern::test::TemporaryFolder folder;
  PlainTarget unix(folder.path("x.sock"));
  for (auto* target : {&tcp, &unix}) {
    ServiceStage stage(ALL, kj::str("[service.http]\nproxy = \"v2\"\n", target == &unix ? asMe() : kj::String(),
                                    "target = \"", target->address, "\"\n"));
    auto calls = stage.callsForVm("web1");
    auto channel = stage.reach(calls, "http");
    auto connection = target->accept();
    stage.send(*channel, "GET");
    auto header = proxyHeader("vm:web1", "http");
    auto got = stage.readFrom(connection, header.size() + 3);
    REQUIRE(got.size() == header.size() + 3);
    CHECK((got.asBytes().slice(0, header.size()) == header.asPtr()));
    CHECK(got.endsWith("GET"));
  }
}

TEST_CASE("a Unix target without a user is connected to as the agent's own") {
  postern::test::TemporaryFolder folder;
  KJ_SYSCALL(chmod(folder.path("").cStr(), 0755));
  auto path = folder.path("x.sock");
  PlainTarget target(path);
  KJ_SYSCALL(chmod(path.cStr(), 0666));
  ServiceStage stage(ALL, kj::str("[service.unix]\ntarget = \"", target.address, "\"\n"));
  if (geteuid() == 0) {
    // Root is nobody's default.
    CHECK(stage.refusalOf(stage.callsFor("alice"), "unix")
              .startsWith("failed: service 'unix' was not reached: the service names no user"));
    stage.agentRunsAs = RunAs{65534, 65534, true, {}};
  }
  auto calls = stage.callsFor("alice");
  auto channel = stage.reach(calls, "unix");
  auto connection = target.accept();
  ucred peer{};
  socklen_t size = sizeof(peer);
  REQUIRE(getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0);
  CHECK(peer.uid == (geteuid() == 0 ? 65534 : geteuid()));
}

// T99
TEST_CASE("a Unix target is connected to as its user: with his rights, and seen as him; nobody becomes root unasked") {
  if (geteuid() != 0) return;
  postern::test::TemporaryFolder folder;
  KJ_SYSCALL(chmod(folder.path("").cStr(), 0755));
  auto path = folder.path("x.sock");
  PlainTarget target(path);
  KJ_SYSCALL(chmod(path.cStr(), 0600));
  auto services = [&](kj::StringPtr user) {
    return kj::str("[service.unix]\nuser = \"", user, "\"\ntarget = \"", target.address, "\"\n");
  };
  ServiceStage stage(ALL, services("daemon"));
  auto calls = stage.callsFor("alice");
  CHECK(stage.refusalOf(calls, "unix").startsWith("failed: "));
  CHECK(geteuid() == 0);

  auto* daemon = getpwnam("daemon");
  REQUIRE(daemon != nullptr);
  KJ_SYSCALL(chown(path.cStr(), daemon->pw_uid, gid_t(-1)));
  auto channel = stage.reach(calls, "unix");
  auto connection = target.accept();
  ucred peer{};
  socklen_t size = sizeof(peer);
  REQUIRE(getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0);
  CHECK(peer.uid == daemon->pw_uid);
  CHECK(peer.gid == daemon->pw_gid);
  CHECK(geteuid() == 0);
  CHECK(getegid() == 0);

  stage.reload(ALL, services("root"));
  auto asRoot = stage.reach(calls, "unix");
  stage.reload(ALL, services("no-such-user"));
  CHECK((stage.refusalOf(calls, "unix") == "failed: service 'unix' was not reached: there is no user 'no-such-user' in "
                                           "this guest, whom the service's user names"));
}

TEST_CASE("an abstract Unix socket is a target like another") {
  int fd;
  KJ_SYSCALL(fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd listening(fd);
  auto name = kj::str("postern-test-", getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path + 1, name.begin(), name.size());
  KJ_SYSCALL(
      bind(fd, reinterpret_cast<sockaddr*>(&address), socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size())));
  KJ_SYSCALL(listen(fd, 16));
  ServiceStage stage(ALL, kj::str("[service.unix]\ntarget = \"unix:@", name, "\"\n"));
  if (geteuid() == 0) stage.agentRunsAs = RunAs{65534, 65534, true, {}};
  stage.reach(stage.callsFor("alice"), "unix");
}

}  // namespace
}  // namespace postern::guest::test
