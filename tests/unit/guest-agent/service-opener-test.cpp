// What the broker does for OpenService: real targets, real programs.

#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "guest-agent/services/acting-as.h"
#include "guest-agent/services/connect-as.h"
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

// The user whom a program runs as without further rights, written as a service's key.
kj::StringPtr asMe() {
  return geteuid() == 0 ? "user = \"root\"\n"_kj : ""_kj;
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
  pid_t pidOf(BulkChannel& channel) {
    auto text = receive(channel, 1);
    while (!text.endsWith("\n")) text = kj::str(text, receive(channel, 1));
    return pid_t(atoi(text.cStr()));
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

TEST_CASE("a program that cannot be started is a failure that says why") {
  ServiceStage stage(ALL, kj::str("[service.program]\n", asMe(), "target = [\"/nonexistent/program\"]\n"));
  CHECK(stage.refusalOf(stage.callsFor("alice"), "program").startsWith("failed: cannot start /nonexistent/program"));
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
    ServiceStage stage(ALL, kj::str("[service.http]\nproxy = \"v2\"\n", target == &unix ? asMe() : ""_kj, "target = \"",
                                    target->address, "\"\n"));
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
    CHECK(stage.refusalOf(stage.callsFor("alice"), "unix").startsWith("failed: the service names no user"));
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
  CHECK((stage.refusalOf(calls, "unix") ==
         "failed: there is no user 'no-such-user' in this guest, whom the service's user names"));
}

// T99
TEST_CASE("whoever acts as another user is himself again behind it, groups included") {
  if (geteuid() != 0) return;
  auto groups = [] {
    gid_t list[256];
    int count = getgroups(256, list);
    return kj::strArray(kj::arrayPtr(list, size_t(count)), ",");
  };
  auto before = groups();
  {
    gid_t theirs[] = {12, 34};
    ActingAs acting({65534, 65533}, theirs);
    CHECK(acting.error() == 0);
    CHECK(geteuid() == 65534);
    CHECK(getegid() == 65533);
    CHECK(getuid() == 0);
    CHECK((groups() == "12,34"));
    CHECK(open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0);
  }
  CHECK(geteuid() == 0);
  CHECK(getegid() == 0);
  CHECK((groups() == before));
  kj::AutoCloseFd shadow(open("/etc/shadow", O_RDONLY | O_CLOEXEC));
  CHECK(shadow.get() >= 0);
}

TEST_CASE("a full listen queue is waited at, as the user, until there is room or the deadline is over") {
  if (geteuid() != 0) return;
  postern::test::TemporaryFolder folder;
  KJ_SYSCALL(chmod(folder.path("").cStr(), 0755));
  auto path = folder.path("x.sock");
  PlainTarget target(path);
  KJ_SYSCALL(listen(target.socket, 0));
  KJ_SYSCALL(chmod(path.cStr(), 0666));
  BrokerLab lab;
  UnixAddress address{kj::str(path)};
  OpenerUser user{kj::str("nobody"), Identity{65534, 65534}, nullptr};
  auto connect = [&](kj::Duration deadline) { return connectAs(lab.port, address, user, deadline); };
  auto first = lab.wait(connect(1 * kj::SECONDS));
  CHECK(first.is<kj::AutoCloseFd>());
  auto late = lab.wait(connect(200 * kj::MILLISECONDS));
  REQUIRE(late.is<TransportError>());
  CHECK((late.get<TransportError>().text == "its listen queue stayed full"));
  auto waiting = connect(10 * kj::SECONDS).eagerlyEvaluate(nullptr);
  lab.turn(100 * kj::MILLISECONDS);
  CHECK(geteuid() == 0);
  target.accept();
  auto second = lab.wait(kj::mv(waiting));
  REQUIRE(second.is<kj::AutoCloseFd>());
  target.accept();
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
