// In a guest with the module vsock_loopback, as root: the guest is its own peer, as CID 1.

#include "transport/vsock.h"

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

// After <sys/socket.h>, which it needs.
#include <linux/vm_sockets.h>

#include "transport/connector.h"
#include "transport/random.h"

namespace postern {
namespace {

struct Fixture {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Timer& timer = io.provider->getTimer();
  SystemRandom random;

  Listening listen(uint32_t port) { return listenOn(io.unixEventPort, timer, Endpoint(VsockEndpoint{CID_ANY, port})); }
  Connected connect(uint32_t cid, uint32_t port, ConnectOptions options = {}) {
    return connectTo(io.unixEventPort, timer, Endpoint(VsockEndpoint{cid, port}), options).wait(io.waitScope);
  }
  Connection accept(Listener& listener) {
    return timer.timeoutAfter(5 * kj::SECONDS, listener.accept()).wait(io.waitScope);
  }
};

kj::Own<Listener> listening(Listening result) {
  KJ_IF_MAYBE (error, result.tryGet<TransportError>()) FAIL(error->text.cStr());
  return kj::mv(result.get<kj::Own<Listener>>());
}
Connection connected(Connected result) {
  KJ_IF_MAYBE (error, result.tryGet<TransportError>()) FAIL(error->text.cStr());
  return kj::mv(result.get<Connection>());
}
bool failsWith(const TransportError& error, const char* part) {
  bool found = strstr(error.text.cStr(), part) != nullptr;
  if (!found) MESSAGE(std::string(error.text.cStr()));
  return found;
}

TEST_CASE("vsock: both ends know each other's CID and port, and have the larger buffer") {
  Fixture f;
  auto listener = listening(f.listen(9700));
  auto client = connected(f.connect(CID_LOCAL, 9700));
  auto server = f.accept(*listener);
  CHECK(client.transport == TransportKind::VSOCK);
  CHECK(client.peer.get<VsockPeer>().cid == CID_LOCAL);
  CHECK(client.peer.get<VsockPeer>().port == 9700);
  CHECK(server.peer.get<VsockPeer>().cid == CID_LOCAL);
  CHECK(server.peer.get<VsockPeer>().port >= 1024);
  for (int fd : {client.fd.get(), server.fd.get()}) {
    uint64_t bytes = 0;
    socklen_t size = sizeof(bytes);
    REQUIRE(getsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &bytes, &size) == 0);
    CHECK(bytes == VSOCK_BUFFER_BYTES);
  }
}

TEST_CASE("vsock: more bytes than fit arrive whole, in order, and then the end") {
  Fixture f;
  auto listener = listening(f.listen(9701));
  auto client = newPipe(f.io.unixEventPort, connected(f.connect(CID_LOCAL, 9701)));
  auto server = newPipe(f.io.unixEventPort, f.accept(*listener));
  constexpr size_t TOTAL = 8 << 20;
  size_t sent = 0, got = 0;
  unsigned waits = 0;
  auto block = kj::heapArray<kj::byte>(1 << 16);
  auto buffer = kj::heapArray<kj::byte>(1 << 16);
  while (got < TOTAL) {
    for (;;) {  // until full
      for (size_t i = 0; i < block.size(); ++i) block[i] = kj::byte((sent + i) * 31 >> 4);
      kj::ArrayPtr<const kj::byte> piece = block.slice(0, kj::min(block.size(), TOTAL - sent));
      if (piece.size() == 0) break;
      auto result = client->write(kj::arrayPtr(&piece, 1));
      REQUIRE(result.state == PipeState::OPEN);
      if (result.bytes == 0) break;
      sent += result.bytes;
    }
    for (;;) {  // until empty
      auto result = server->read(buffer);
      REQUIRE(result.state == PipeState::OPEN);
      if (result.bytes == 0) break;
      for (size_t i = 0; i < result.bytes; ++i) REQUIRE(buffer[i] == kj::byte((got + i) * 31 >> 4));
      got += result.bytes;
    }
    if (got == TOTAL) break;
    ++waits;
    auto either = server->whenReadable();
    if (sent < TOTAL) either = either.exclusiveJoin(client->whenWritable());
    f.timer.timeoutAfter(5 * kj::SECONDS, kj::mv(either)).wait(f.io.waitScope);
  }
  CHECK(waits > 0);
  CHECK(server->read(buffer).bytes == 0);
  auto readable = server->whenReadable();
  client->close();
  f.timer.timeoutAfter(5 * kj::SECONDS, kj::mv(readable)).wait(f.io.waitScope);
  CHECK(server->read(buffer).state == PipeState::ENDED);
}

TEST_CASE("vsock: nobody at the port, nobody at the CID, and a port in use each say so") {
  Fixture f;
  CHECK(failsWith(f.connect(CID_LOCAL, 9702).get<TransportError>(), "nobody listens there"));
  CHECK(failsWith(f.connect(77, 9702).get<TransportError>(), "no vsock device leads there"));
  auto listener = listening(f.listen(9702));
  CHECK(failsWith(f.listen(9702).get<TransportError>(), "in use"));
  CHECK(failsWith(listenOn(f.io.unixEventPort, f.timer, Endpoint(VsockEndpoint{77, 9703})).get<TransportError>(),
                  "vsock:any"));
  CHECK(f.connect(CID_LOCAL, 9702).is<Connection>());  // refused, then retried
}

TEST_CASE("vsock: connections wait in the queue unread, and a dropped attempt is one that has ended") {
  Fixture f;
  auto listener = listening(f.listen(9704));
  auto first = connected(f.connect(CID_LOCAL, 9704));
  { auto dropped = connected(f.connect(CID_LOCAL, 9704)); }
  auto third = connected(f.connect(CID_LOCAL, 9704));
  for (int i = 0; i < 3; ++i) f.accept(*listener);
  CHECK(listener->tryAccept() == nullptr);
}

TEST_CASE("vsock: root connects from different ports below 1024, others from any") {
  Fixture f;
  auto listener = listening(f.listen(9705));
  ConnectOptions privileged;
  privileged.privilegedSource = f.random;
  kj::Vector<Connection> kept;
  for (int i = 0; i < 100; ++i) {
    kept.add(connected(f.connect(CID_LOCAL, 9705, privileged)));
    auto port = f.accept(*listener).peer.get<VsockPeer>().port;
    CHECK(port >= PRIVILEGED_PORT_FIRST);
    CHECK(port <= PRIVILEGED_PORT_LAST);
  }

  pid_t child = fork();
  if (child == 0) {
    // Only system calls of its own: the parent's loop does not survive a fork.
    if (setresuid(65534, 65534, 65534) != 0) _exit(1);
    execl("/proc/self/exe", "guest-transport", "-tc=*helper: connects unprivileged*", "--no-skip", nullptr);
    _exit(2);
  }
  auto connection = f.accept(*listener);
  CHECK(connection.peer.get<VsockPeer>().port >= 1024);
  int status;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("helper: connects unprivileged to port 9705" * doctest::skip()) {
  Fixture f;
  ConnectOptions privileged;
  privileged.privilegedSource = f.random;
  CHECK(f.connect(CID_LOCAL, 9705, privileged).is<Connection>());
}

}  // namespace
}  // namespace postern
