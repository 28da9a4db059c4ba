#include "transport/listener.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/transport/connection-fixture.h"
#include "transport/accept-queue.h"
#include "transport/vsock.h"

namespace postern {
namespace {

struct Fixture : ConnectionFixture {
  kj::String path = dir.file("p.sock");

  Listening listen(ListenOptions options = {}) {
    return listenOn(port, timer, Endpoint(UnixEndpoint{kj::str(path)}), options);
  }
  kj::Own<Listener> listening(ListenOptions options = {}) {
    auto result = listen(options);
    KJ_IF_MAYBE (error, result.tryGet<TransportError>()) FAIL(error->text.cStr());
    return kj::mv(result.get<kj::Own<Listener>>());
  }
  Connection accepted(Listener& listener) { return now(listener.accept()); }
};

bool exists(kj::StringPtr path) {
  struct stat info;
  return lstat(path.cStr(), &info) == 0;
}

TEST_CASE("a connection is accepted with its peer's credentials, unread, close-on-exec and non-blocking") {
  Fixture f;
  auto listener = f.listening();
  auto client = f.rawConnect(f.path);
  sendAll(client, "early");
  auto connection = f.accepted(*listener);
  CHECK(connection.transport == TransportKind::UNIX);
  CHECK(connection.descriptorKind == DescriptorKind::SOCKET);
  CHECK(connection.peer.get<UnixPeer>().uid == geteuid());
  CHECK(connection.peer.get<UnixPeer>().pid == getpid());
  CHECK((fcntl(connection.fd, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(connection.fd, F_GETFL) & O_NONBLOCK) != 0);

  auto pipe = newPipe(f.port, kj::mv(connection));
  kj::byte buffer[16];
  CHECK(pipe->read(buffer).bytes == 5);
  CHECK(listener->counters().accepted == 1);
}

TEST_CASE("connections wait in the queue, in order, until each is asked for") {
  Fixture f;
  auto listener = f.listening();
  auto pending = listener->whenPending();
  CHECK(!f.resolves(pending));
  auto first = f.rawConnect(f.path);
  auto second = f.rawConnect(f.path);
  sendAll(first, "1");
  sendAll(second, "2");
  CHECK(f.resolves(pending));
  auto again = listener->whenPending();  // asking takes nothing
  CHECK(f.resolves(again));

  auto one = f.accepted(*listener);
  CHECK((receiveNow(one.fd) == "1"));
  // The second one's edge has passed with the first; it must be found all the same.
  auto two = f.accepted(*listener);
  CHECK((receiveNow(two.fd) == "2"));
  CHECK(listener->tryAccept() == nullptr);
  auto idle = listener->whenPending();
  CHECK(!f.resolves(idle));
}

TEST_CASE("an accept that is cancelled loses no connection") {
  Fixture f;
  auto listener = f.listening();
  {
    auto cancelled = listener->accept();
    CHECK(!f.resolves(cancelled));
  }
  auto client = f.rawConnect(f.path);
  sendAll(client, "still here");
  auto connection = f.accepted(*listener);
  CHECK((receiveNow(connection.fd) == "still here"));
}

TEST_CASE("a connection that its peer gave up in the queue comes as one that has ended, and the next one is served") {
  Fixture f;
  auto listener = f.listening();
  { auto gone = f.rawConnect(f.path); }
  auto client = f.rawConnect(f.path);
  sendAll(client, "x");
  auto first = f.accepted(*listener);
  CHECK((receiveNow(first.fd) == ""));
  auto second = f.accepted(*listener);
  CHECK((receiveNow(second.fd) == "x"));
}

// T34
TEST_CASE("the socket's file has mode 0600 whatever the umask, and goes with the listener") {
  Fixture f;
  mode_t before = umask(0);
  auto listener = f.listening();
  umask(before);
  struct stat info;
  REQUIRE(stat(f.path.cStr(), &info) == 0);
  CHECK(S_ISSOCK(info.st_mode));
  CHECK((info.st_mode & 07777) == 0600);
  listener = nullptr;
  CHECK(!exists(f.path));
}

TEST_CASE("a file that another has put in the socket's place is left alone") {
  Fixture f;
  auto listener = f.listening();
  REQUIRE(unlink(f.path.cStr()) == 0);
  auto other = f.rawListen(f.path);
  listener = nullptr;
  CHECK(exists(f.path));
}

TEST_CASE("the socket of a dead listener is replaced") {
  Fixture f;
  { auto dead = f.rawListen(f.path); }
  CHECK(exists(f.path));
  auto listener = f.listening();
  auto client = f.rawConnect(f.path);
  f.accepted(*listener);
}

TEST_CASE("the socket of a living listener is in use, also when its queue is full") {
  Fixture f;
  auto living = f.rawListen(f.path, 0);
  CHECK(failsWith(f.listen(), {"cannot listen on", f.path.cStr(), "in use"}));
  // The question itself took the queue's one place, so now it is full.
  CHECK(failsWith(f.listen(), {"in use"}));
  CHECK(failsWith(f.listen(), {"in use"}));
  living = nullptr;
  f.listening();
}

TEST_CASE("a file that is no socket is not replaced") {
  Fixture f;
  { kj::AutoCloseFd file(open(f.path.cStr(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }
  CHECK(failsWith(f.listen(), {"no socket"}));
  CHECK(exists(f.path));
  REQUIRE(unlink(f.path.cStr()) == 0);
  REQUIRE(symlink("/nowhere", f.path.cStr()) == 0);
  CHECK(failsWith(f.listen(), {"no socket"}));
}

TEST_CASE("a folder that is missing, locked by another or not to be written gives one line that says so") {
  Fixture f;
  f.path = f.dir.file("none/p.sock");
  CHECK(failsWith(f.listen(), {"folder", "none", "No such file", "0700"}));
  f.path = kj::str("/proc/p.sock");
  CHECK(failsWith(f.listen(), {"/proc/p.sock", "may this process's user write"}));
  f.path = f.dir.file("p.sock");
  kj::AutoCloseFd folder(open(f.dir.path().cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(flock(folder, LOCK_EX) == 0);
  CHECK(failsWith(f.listen(), {"locked"}));
  REQUIRE(flock(folder, LOCK_UN) == 0);
  f.listening();
}

TEST_CASE("a hybrid endpoint listens where the VMM connects for the guest") {
  Fixture f;
  auto result = listenOn(f.port, f.timer, Endpoint(HybridEndpoint{kj::str(f.path), 52}));
  auto& listener = result.get<kj::Own<Listener>>();
  auto vmm = f.rawConnect(kj::str(f.path, "_52"));
  CHECK(f.accepted(*listener).transport == TransportKind::HYBRID);
}

TEST_CASE("a serial endpoint cannot be listened on") {
  Fixture f;
  CHECK(failsWith(listenOn(f.port, f.timer, Endpoint(SerialEndpoint{kj::str("/dev/x")})), {"serial:/dev/x", "opened"}));
}

TEST_CASE("without descriptors the listener pauses, keeps the connection in the queue, and serves it afterwards") {
  Fixture f;
  auto listener = f.listening();
  CHECK(listener->tryAccept() == nullptr);
  auto client = f.rawConnect(f.path);
  sendAll(client, "patient");
  for (uint64_t round = 1; round <= 3; ++round) {
    {
      NoDescriptors none;
      CHECK(listener->tryAccept() == nullptr);
      CHECK(listener->tryAccept() == nullptr);  // during the pause, when it does not even try
    }
    CHECK(listener->counters().pauses == round);
    auto pending = listener->whenPending();
    CHECK(!f.resolves(pending));  // by the clock alone: it does not spin
    f.advance(ACCEPT_PAUSE);
    CHECK(f.resolves(pending));
  }

  {
    NoDescriptors none;
    CHECK(listener->tryAccept() == nullptr);
  }
  auto accept = listener->accept();
  CHECK(!f.resolves(accept));
  CHECK(listener->tryAccept() == nullptr);  // the pause is for everyone
  f.advance(ACCEPT_PAUSE);
  CHECK((receiveNow(f.now(kj::mv(accept)).fd) == "patient"));
}

TEST_CASE("errors of accept are told apart: nothing there, that one gone, a shortage, our bug") {
  CHECK(classifyAcceptFailure(EAGAIN) == AcceptFailure::NOTHING);
  for (int e : {ECONNABORTED, EINTR, EPROTO}) CHECK(classifyAcceptFailure(e) == AcceptFailure::TRY_NEXT);
  for (int e : {EMFILE, ENFILE, ENOMEM, ENOBUFS, 9999}) CHECK(classifyAcceptFailure(e) == AcceptFailure::PAUSE);
  for (int e : {EBADF, EINVAL, ENOTSOCK}) CHECK(classifyAcceptFailure(e) == AcceptFailure::OUR_BUG);
}

TEST_CASE("a descriptor that does not listen is our bug, not an endless loop") {
  Fixture f;
  AcceptQueue queue(
      f.port, f.timer, newUnixSocket(), [](StrangersFd) { return nullptr; }, kj::Own<void>());
  CHECK_THROWS_AS((void)queue.tryAccept(), kj::Exception);
}

// Runs as another user, in a process of its own: connects and says whether it was closed without a word (0), heard
// "hello" (1), or could not connect (2).
pid_t visitAs(uid_t uid, kj::StringPtr path) {
  pid_t child = fork();
  if (child != 0) return child;
  if (setresuid(uid, uid, uid) != 0) _exit(3);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  auto address = unixAddress(path);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) _exit(2);
  char buffer[8];
  _exit(recv(fd, buffer, sizeof(buffer), 0) > 0 ? 1 : 0);
}

int exitOf(pid_t child) {
  int status;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// T34
TEST_CASE(
    "a user who may not connect cannot reach the socket; one who slips through is closed unread and counted; the "
    "named one is served") {
  if (geteuid() != 0) {
    MESSAGE("skipped: only root can take other users' places");
    return;
  }
  constexpr uid_t VMM = 64001, STRANGER = 64002;
  Fixture f;
  REQUIRE(chmod(f.dir.path().cStr(), 0755) == 0);
  auto listener = f.listening(ListenOptions{VMM});
  CHECK(exitOf(visitAs(STRANGER, f.path)) == 2);

  REQUIRE(chmod(f.path.cStr(), 0666) == 0);
  pid_t stranger = visitAs(STRANGER, f.path);
  while (listener->counters().foreignPeers == 0) {
    CHECK(listener->tryAccept() == nullptr);
    usleep(1000);
  }
  CHECK(exitOf(stranger) == 0);

  REQUIRE(chmod(f.path.cStr(), 0600) == 0);
  pid_t vmm = visitAs(VMM, f.path);
  auto connection = listener->accept().wait(f.scope);
  CHECK(connection.peer.get<UnixPeer>().uid == VMM);
  CHECK(connection.peer.get<UnixPeer>().pid == vmm);
  sendAll(connection.fd, "hello");
  CHECK(exitOf(vmm) == 1);
  CHECK(listener->counters().accepted == 1);
}

TEST_CASE("what a peer is reads well in a log") {
  CHECK((toString(PeerAddress(UnixPeer{1000, 4711})) == "uid 1000 pid 4711"));
  CHECK((toString(PeerAddress(VsockPeer{42, 1023})) == "cid 42 port 1023"));
  CHECK((toString(PeerAddress(UnknownPeer())) == "unknown"));
}

TEST_CASE("vsock's errors of listening each have a line that says what to do") {
  VsockEndpoint any = {CID_ANY, 9700};
  CHECK(isLineWith(vsockListenError(any, EADDRINUSE), {"any context id", "9700", "in use"}));
  CHECK(isLineWith(vsockListenError({7, 9700}, EADDRNOTAVAIL), {"context id 7", "vsock:any"}));
  CHECK(isLineWith(vsockListenError(any, EAFNOSUPPORT), {"module vsock"}));
  CHECK(isLineWith(vsockListenError({CID_ANY, 80}, EACCES), {"CAP_NET_BIND_SERVICE"}));
  CHECK(isLineWith(vsockListenError(any, EMFILE), {"Too many open files"}));
}

}  // namespace
}  // namespace postern
