// What guests reach on the host, and where it is mirrored to.

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "host/daemon/service-grants.h"
#include "tests/unit/host/channel-desk-fixture.h"
#include "transport/unix-socket.h"

namespace postern::host {
namespace {

using test::ChannelDeskLab;
using test::isConnected;
using test::isOver;
using test::LabAnswer;
using test::LabVm;
using test::says;

constexpr const char* ANYTHING = R"(
[[allow]]
id = "all"
from = "any"
to = "host"
call = "service.*"
)";

struct ServiceLab : ChannelDeskLab {
  LabVm& web = add("web1");
  ServiceLab() { policy(ANYTHING); }

  void program(kj::StringPtr name, kj::ArrayPtr<const kj::StringPtr> argv, bool proxy = false) {
    ServiceTarget target;
    target.name = kj::str(name);
    target.leadsTo = ServiceProgram{KJ_MAP(part, argv){return kj::str(part);
  }
};
target.proxy = proxy;
kj::Vector<HostService> all;
all.add(HostService{kj::mv(target), nullptr});
channels->hostServices().set(kj::mv(all));
}  // namespace
void shell(kj::StringPtr script) {
  program("prog", {"/bin/sh"_kj, "-c"_kj, script});
}

// What comes until the other side ends, or `enough` of it.
std::string readAll(int socket, size_t enough = SIZE_MAX) {
  std::string text;
  char bytes[4096];
  soon([&]() {
    auto got = recv(socket, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got > 0) text.append(bytes, static_cast<size_t>(got));
    return text.size() >= enough || got == 0 || (got < 0 && errno != EAGAIN);
  });
  return text;
}
};  // namespace postern::host

bool lives(pid_t pid) {
  auto read = readFile(kj::str("/proc/", pid, "/stat"), 4096);
  if (read.is<FileError>()) return false;
  std::string stat = read.get<kj::String>().cStr();
  auto state = stat[stat.rfind(')') + 2];
  return state != 'Z' && state != 'X';
}

TEST_CASE("a program of the host has the channel as its input and output, and is told who connects and to what") {
  ServiceLab lab;
  lab.shell("echo \"$POSTERN_PEER $POSTERN_SERVICE\"; cat; echo bye");
  auto answer = lab.ask(lab.web, 1, "host", "prog");
  REQUIRE(answer.isAllowed());
  CHECK(lab.readAll(answer.socket, 13) == "vm:web1 prog\n");
  REQUIRE(send(answer.socket, "hello\n", 6, 0) == 6);
  KJ_SYSCALL(shutdown(answer.socket, SHUT_WR));
  CHECK(lab.readAll(answer.socket).find("bye\n") != std::string::npos);
}

// T115
TEST_CASE("a program's environment is nothing but that, and no descriptor of posternd's is open in it") {
  ServiceLab lab;
  setenv("POSTERN_SECRET_OF_TEST", "x", 1);
  lab.shell("env; ls /proc/self/fd");
  auto answer = lab.ask(lab.web, 1, "host", "prog");
  auto text = lab.readAll(answer.socket);
  unsetenv("POSTERN_SECRET_OF_TEST");
  CHECK(text.find("POSTERN_PEER=vm:web1\n") != std::string::npos);
  CHECK(text.find("POSTERN_SECRET") == std::string::npos);
  CHECK(text.find("\n0\n1\n2\n3\n") != std::string::npos);  // 3 is the folder that ls reads
  CHECK(text.find("\n4\n") == std::string::npos);
}

// T115
TEST_CASE("a program that does not end by itself is ended when its channel is over") {
  ServiceLab lab;
  lab.shell("echo $$; trap '' HUP; while :; do sleep 1000; done");
  auto answer = lab.ask(lab.web, 1, "host", "prog");
  auto pid = static_cast<pid_t>(atoi(lab.readAll(answer.socket, 2).c_str()));
  REQUIRE(pid > 1);
  REQUIRE(lives(pid));
  lab.close(lab.web, 1, "finished");
  CHECK(lab.soon([&]() { return !lives(pid); }));
}

TEST_CASE("a channel to a program that is cut ends, and the program with it") {
  ServiceLab lab;
  lab.shell("echo $$; cat >/dev/null");
  auto answer = lab.ask(lab.web, 1, "host", "prog");
  auto pid = static_cast<pid_t>(atoi(lab.readAll(answer.socket, 2).c_str()));
  REQUIRE(lives(pid));
  lab.channels->cutAllOf("web1", "removed");
  CHECK(lab.soon([&]() { return isOver(answer.socket) && !lives(pid); }));
}

TEST_CASE("a program that cannot be started is a refusal, which says why to the administrator alone") {
  ServiceLab lab;
  lab.program("prog", {"/nowhere/at-all"_kj});
  CHECK_FALSE(lab.ask(lab.web, 1, "host", "prog").isAllowed());
  CHECK(says(lab.auditText(), R"("reason":"not-reached")"));
  bool isTold = false;
  lab.records.eventLog().forEachAfter(0, [&](const Event& event) { isTold |= says(event.text, "/nowhere/at-all"); });
  CHECK(isTold);
}

TEST_CASE("a target that is down is a refusal") {
  ServiceLab lab;
  lab.serveUnix("down", "nobody.sock");
  CHECK_FALSE(lab.ask(lab.web, 1, "host", "down").isAllowed());
  CHECK(says(lab.auditText(), R"("to":"host","reason":"not-reached")"));
  CHECK(lab.web.counters.forBoard().refused == 1);
}

TEST_CASE("a target that wants to be told gets a PROXY header before anything else") {
  ServiceLab lab;
  auto listening = lab.listen("s.sock");
  lab.serveUnix("s", "s.sock", /* proxy */ true);
  auto answer = lab.ask(lab.web, 1, "host", "s");
  REQUIRE(answer.isAllowed());
  REQUIRE(send(answer.socket, "GET", 3, 0) == 3);
  kj::AutoCloseFd service(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  auto header = proxyHeader("vm:web1", "s");
  std::string expected(header.asChars().begin(), header.size());
  CHECK(lab.readAll(service, header.size() + 3) == expected + "GET");
}

TEST_CASE("a Unix socket is connected to as the user that its service names") {
  if (geteuid() != 0) return;
  ServiceLab lab;
  auto* nobody = getpwnam("nobody");
  REQUIRE(nobody != nullptr);
  auto listening = lab.listen("s.sock");
  KJ_SYSCALL(chmod(lab.folder.path(".").cStr(), 0755));
  KJ_SYSCALL(chmod(lab.folder.path("s.sock").cStr(), 0600));
  auto serveAs = [&](uid_t uid, gid_t gid) {
    ServiceTarget target;
    target.name = kj::str("s");
    target.leadsTo = LocalAddress(UnixAddress{lab.folder.path("s.sock")});
    kj::Vector<HostService> all;
    all.add(HostService{kj::mv(target), ServiceUser{{uid, gid}, kj::heapArray<gid_t>({gid})}});
    lab.channels->hostServices().set(kj::mv(all));
  };
  serveAs(nobody->pw_uid, nobody->pw_gid);
  CHECK_FALSE(lab.ask(lab.web, 1, "host", "s").isAllowed());  // which may not
  KJ_SYSCALL(chown(lab.folder.path("s.sock").cStr(), nobody->pw_uid, nobody->pw_gid));
  REQUIRE(lab.ask(lab.web, 2, "host", "s").isAllowed());
  kj::AutoCloseFd service(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  auto peer = localPeerOf(service);
  CHECK(peer.uid == nobody->pw_uid);
  CHECK(peer.gid == nobody->pw_gid);
  CHECK(geteuid() == 0);
}

TEST_CASE("a program that looks who is at the other end of its standard input sees its own user") {
  if (geteuid() != 0) return;
  ServiceLab lab;
  ServiceTarget target;
  target.name = kj::str("prog");
  target.leadsTo = ServiceProgram{kj::heapArray({kj::str("/bin/cat")})};
  kj::Vector<HostService> all;
  all.add(HostService{kj::mv(target), ServiceUser{{65534, 65533}, nullptr}});
  lab.channels->hostServices().set(kj::mv(all));
  auto answer = lab.ask(lab.web, 1, "host", "prog");
  REQUIRE(answer.isAllowed());
  auto peer = localPeerOf(answer.socket);  // of a pair both ends see the same
  CHECK(peer.uid == 65534);
  CHECK(peer.gid == 65533);
}

// Mirrors ----------------------------------------------------------------------------------------------------------

std::string mirrored(ChannelDeskLab& lab, const char* copy) {
  return std::string(
             "[[allow]]\nid = \"all\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.*\"\nmirror = { to = \"unix:") +
         lab.folder.path("ids.sock").cStr() + "\", copy = \"" + copy + "\" }\n";
}

TEST_CASE("a rule's mirror gets a connection for each channel, which is handed on, and the audit says so") {
  ServiceLab lab;
  auto cache = lab.listen("cache.sock"), appliance = lab.listen("ids.sock");
  lab.serveUnix("cache", "cache.sock");
  lab.policy(mirrored(lab, "full"));
  auto answer = lab.ask(lab.web, 1, "host", "cache");
  REQUIRE(answer.isAllowed());
  REQUIRE((answer.mirror != nullptr));
  kj::AutoCloseFd inspecting(accept4(appliance, nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(isConnected(answer.mirror, inspecting));
  auto mirror = answer.flow().getMirror();
  CHECK(mirror.getFull());
  CHECK((mirror.getWho() == "vm:web1"));
  CHECK((mirror.getTo() == "host"));
  CHECK(says(lab.auditText(), kj::str("\"mirror\":\"unix:", lab.folder.path("ids.sock"), " full\"")));
  CHECK((fcntl(answer.mirror, F_GETFL) & O_NONBLOCK) != 0);
  lab.policy(mirrored(lab, "meta"));
  CHECK_FALSE(lab.ask(lab.web, 2, "host", "cache").flow().getMirror().getFull());
}

TEST_CASE("a mirror that cannot be reached delays nothing: the channel goes on without it, and that is told once") {
  ServiceLab lab;
  auto cache = lab.listen("cache.sock");
  lab.serveUnix("cache", "cache.sock");
  lab.policy(mirrored(lab, "meta"));
  for (uint64_t id = 1; id <= 10; ++id) {
    auto answer = lab.ask(lab.web, id, "host", "cache");
    REQUIRE(answer.isAllowed());
    CHECK((answer.mirror == nullptr));
    CHECK(answer.flow().hasMirror());
    CHECK((answer.flow().getMirror().getWho() == "vm:web1"));
  }
  CHECK(lab.eventsOf("mirror-lost") == 1);
}

TEST_CASE("a mirror whose listen queue is full is one that cannot be reached") {
  ServiceLab lab;
  auto cache = lab.listen("cache.sock"), appliance = lab.listen("ids.sock");
  KJ_SYSCALL(listen(appliance, 0));
  lab.serveUnix("cache", "cache.sock");
  lab.policy(mirrored(lab, "meta"));
  bool wasLost = false;
  auto began = kj::systemPreciseMonotonicClock().now();
  for (uint64_t id = 1; id <= 8 && !wasLost; ++id) wasLost = lab.ask(lab.web, id, "host", "cache").mirror == nullptr;
  CHECK(wasLost);
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 5 * kj::SECONDS);
}

// Grants -----------------------------------------------------------------------------------------------------------

TEST_CASE("a grant for services says each one's rule, limit and mirror; one for their names says nothing more") {
  ServiceLab lab;
  auto appliance = lab.listen("ids.sock");
  lab.policy(std::string(R"(
[[allow]]
id = "one"
from = "user:alice"
to = "web1"
call = "service.ssh"
limit = { open = 3, rate = "0 B/s" }
[[allow]]
id = "two"
from = "user:alice"
to = "web1"
call = "service.web"
mirror = { to = "unix:)") +
             lab.folder.path("ids.sock").cStr() + "\", copy = \"full\" }\n");
  auto caller = kj::atomicRefcounted<LocalCaller>();
  caller->user = kj::str("alice");
  GrantEntry entry{1, kj::str("web1"), {}, kj::mv(caller)};
  for (auto call : {"ping", "service.*", "service.ssh", "service.web", "service.other"}) {
    entry.granted.calls.add(kj::str(call));
  }
  capnp::MallocMessageBuilder message;
  auto grant = message.initRoot<schema::Grant>();
  setServiceGrants(grant, entry, lab.web.vm, lab.decisions, lab.channels->mirrorSockets());
  REQUIRE(grant.getServices().size() == 2);
  auto ssh = grant.getServices()[0].asReader(), web = grant.getServices()[1].asReader();
  CHECK((ssh.getCall() == "service.ssh"));
  CHECK((ssh.getRule() == "one"));
  CHECK(ssh.getLimit().getOpen() == 3);
  CHECK(ssh.getLimit().getZero() == 1);
  CHECK_FALSE(ssh.hasMirror());
  CHECK((web.getCall() == "service.web"));
  CHECK((web.getRule() == "two"));
  CHECK(web.getMirror().getFull());
  CHECK((web.getMirror().getWho() == "user:alice"));
  CHECK((web.getMirror().getTo() == "vm:web1"));
  CHECK((takeDescriptor(grant.getServices()[1].getMirror().getSocket()).wait(lab.io.waitScope) != nullptr));
  REQUIRE(entry.granted.services.size() == 2);
  CHECK((entry.granted.services[0].service == "ssh"));
  CHECK((entry.granted.services[1].rule == "two"));
  CHECK(says(entry.granted.services[1].mirror, "ids.sock full"));
}

}  // namespace
}  // namespace postern::host
