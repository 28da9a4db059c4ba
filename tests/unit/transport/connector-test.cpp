#include "transport/connector.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/connection-fixture.h"
#include "transport/hybrid.h"
#include "transport/serial-port.h"
#include "transport/vsock.h"

namespace postern {
namespace {

struct Fixture : ConnectionFixture {
  kj::String path = dir.file("p.sock");

  kj::Promise<Connected> connect(Endpoint endpoint) { return connectTo(port, timer, endpoint); }
  kj::Promise<Connected> connectPath() { return connect(UnixEndpoint{kj::str(path)}); }
};

TEST_CASE("connecting to a Unix socket gives the listener's credentials and bytes both ways") {
  Fixture f;
  auto listening = f.rawListen(f.path);
  auto result = f.now(f.connectPath());
  auto& connection = result.get<Connection>();
  CHECK(connection.transport == TransportKind::UNIX);
  CHECK(connection.peer.get<UnixPeer>().uid == geteuid());
  CHECK(connection.peer.get<UnixPeer>().pid == getpid());
  auto peer = f.rawAccept(listening);
  sendAll(peer, "hi");
  CHECK((receiveNow(connection.fd) == "hi"));
}

TEST_CASE("each way of not connecting has its line, and the next attempt may succeed") {
  Fixture f;
  CHECK(failsWith(f.now(f.connectPath()), {f.path.cStr(), "no such socket", "running?"}));
  { auto dead = f.rawListen(f.path); }
  CHECK(failsWith(f.now(f.connectPath()), {"nobody listens", "start it again"}));
  REQUIRE(unlink(f.path.cStr()) == 0);
  auto listening = f.rawListen(f.path);
  CHECK(f.now(f.connectPath()).is<Connection>());
  f.path = f.dir.file("p.sock/below");
  CHECK(failsWith(f.now(f.connectPath()), {"Not a directory"}));
}

TEST_CASE("that nobody listens is told apart from other failures") {
  Fixture f;
  auto nobodyListens = [&] { return f.now(f.connectPath()).get<TransportError>().nobodyListens; };
  CHECK(nobodyListens());
  { auto dead = f.rawListen(f.path); }
  CHECK(nobodyListens());
  f.path = f.dir.file("p.sock/below");
  CHECK_FALSE(nobodyListens());
}

TEST_CASE("a full listen queue is waited for, until there is room or the deadline has come") {
  Fixture f;
  auto listening = f.rawListen(f.path, 0);
  auto first = f.rawConnect(f.path);
  auto waiting = f.connectPath();
  CHECK(!f.resolves(waiting));
  auto served = f.rawAccept(listening);
  CHECK(!f.resolves(waiting));  // by the clock alone
  f.advance(20 * kj::MILLISECONDS);
  CHECK(f.now(kj::mv(waiting)).is<Connection>());

  auto late = f.connectPath();
  for (int i = 0; i < 249; ++i) {
    f.advance(20 * kj::MILLISECONDS);
    CHECK(!f.resolves(late));
  }
  f.advance(20 * kj::MILLISECONDS);
  CHECK(failsWith(f.now(kj::mv(late)), {"queue stayed full"}));
}

TEST_CASE("an attempt that is dropped leaves no descriptor") {
  Fixture f;
  auto listening = f.rawListen(f.path, 0);
  auto first = f.rawConnect(f.path);
  size_t before = test::settled(openDescriptors);
  {
    auto waiting = f.connectPath();
    CHECK(!f.resolves(waiting));
    CHECK(test::comesTo(openDescriptors, before + 1));
  }
  CHECK(test::comesTo(openDescriptors, before));
}

TEST_CASE("without descriptors connecting fails with a line, not an exception") {
  Fixture f;
  auto listening = f.rawListen(f.path);
  auto connect = [&] {
    NoDescriptors none;
    return f.connectPath();
  };
  auto listen = [&] {
    NoDescriptors none;
    return listenOn(f.port, f.timer, Endpoint(UnixEndpoint{f.dir.file("q.sock")}));
  };
  CHECK(failsWith(f.now(connect()), {"Too many open files"}));
  CHECK(failsWith(listen(), {"Too many open files"}));
}

// Hybrid vsock ------------------------------------------------------------------------------------------------------

// Firecracker's side of the socket, and the guest's behind it, played by the test.
struct Hybrid : Fixture {
  kj::AutoCloseFd listening = rawListen(path);
  kj::Promise<Connected> result = connect(HybridEndpoint{kj::str(path), 52});
  kj::AutoCloseFd vmm;

  // Takes the connection and its request.
  Hybrid() {
    CHECK(!resolves(result));
    vmm = rawAccept(listening);
    CHECK((receiveNow(vmm) == "CONNECT 52\n"));
  }
  bool failsAs(std::initializer_list<const char*> parts) { return failsWith(now(kj::mv(result)), parts); }
};

// T38
TEST_CASE("hybrid: the request is one line, OK connects, and what follows it is left for the pipe") {
  Hybrid f;
  sendAll(f.vmm, "OK 1073741824\nHELLO of the guest\nand more");
  auto result = f.now(kj::mv(f.result));
  auto& connection = result.get<Connection>();
  CHECK(connection.transport == TransportKind::HYBRID);
  CHECK((receiveNow(connection.fd) == "HELLO of the guest\nand more"));
  sendAll(connection.fd, "HELLO of the host");
  CHECK((receiveNow(f.vmm) == "HELLO of the host"));
}

TEST_CASE("hybrid: the request leaves in one write") {
  // A socket that keeps message boundaries shows how many writes there were.
  Fixture f;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  kj::AutoCloseFd vmm(fds[1]);
  auto result = requestGuestPort(
      f.port, f.timer,
      Connection{TransportKind::HYBRID, DescriptorKind::SOCKET, UnknownPeer(), kj::AutoCloseFd(fds[0])}, 4294967294);
  CHECK(!f.resolves(result));
  CHECK((receiveNow(vmm) == "CONNECT 4294967294\n"));
}

TEST_CASE("hybrid: an OK in pieces, byte by byte, connects") {
  Hybrid f;
  for (char c : kj::StringPtr("OK 7\n")) {
    CHECK(!f.resolves(f.result));
    sendAll(f.vmm, kj::str(c));
  }
  sendAll(f.vmm, "x");
  auto result = f.now(kj::mv(f.result));
  CHECK((receiveNow(result.get<Connection>().fd) == "x"));
}

TEST_CASE("hybrid: the end of the stream, before or inside the answer, is a refusal") {
  for (auto said : {"", "OK 1", "OK 12345"}) {
    Hybrid f;
    sendAll(f.vmm, said);
    CHECK(!f.resolves(f.result));
    f.vmm = nullptr;
    CHECK(f.failsAs({"port 52", "refused", "postern-agent"}));
  }
}

TEST_CASE("hybrid: a VMM that has gone before the request is a refusal") {
  Fixture f;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  close(fds[1]);
  auto result = f.now(requestGuestPort(
      f.port, f.timer,
      Connection{TransportKind::HYBRID, DescriptorKind::SOCKET, UnknownPeer(), kj::AutoCloseFd(fds[0])}, 52));
  CHECK(failsWith(result, {"refused"}));
}

// T39
TEST_CASE("hybrid: any other answer is an error that quotes it in print") {
  for (auto said : {"OK\n", "OK \n", "OK x\n", "OK 1 \n", "OK 1\r\n", "ok 1\n", "OK -1\n", "OK 12345678901\n", "\n",
                    "CONNECT 52\n", "HTTP/1.1 400 Bad\r\n", "\x01\x02\n"}) {
    Hybrid f;
    sendAll(f.vmm, said);
    CHECK(f.failsAs({"in place of OK", "Firecracker"}));
  }
}

// T38
TEST_CASE("hybrid: garbage without a line's end is given up after 32 bytes") {
  {
    Hybrid f;
    sendAll(f.vmm, "OK 1111111111111111111111111111");  // 31 bytes
    CHECK(!f.resolves(f.result));
    sendAll(f.vmm, "1");
    CHECK(f.failsAs({"in place of OK"}));
  }
  Hybrid g;
  sendAll(g.vmm, kj::str(kj::repeat('a', 100000)));
  CHECK(g.failsAs({"aaaa", "in place of OK"}));
}

TEST_CASE("hybrid: each byte of the answer flipped is refused, or changes a digit, which nobody reads") {
  const kj::StringPtr good = "OK 9\n";
  for (size_t i = 0; i < good.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      auto said = kj::heapString(good);
      said[i] = char(said[i] ^ (1 << bit));
      Hybrid f;
      sendAll(f.vmm, said);
      f.vmm = nullptr;
      bool connected = f.now(kj::mv(f.result)).is<Connection>();
      CHECK(connected == (i == 3 && said[3] >= '0' && said[3] <= '9'));
    }
  }
}

TEST_CASE("hybrid: a VMM without an answer is given up at the deadline, and a slow one in time is not") {
  {
    Hybrid f;
    sendAll(f.vmm, "OK ");
    f.advance(limits::HYBRID_CONNECT_TIMEOUT - 1 * kj::MILLISECONDS);
    CHECK(!f.resolves(f.result));
    f.advance(1 * kj::MILLISECONDS);
    CHECK(f.failsAs({"no answer in time", "try again"}));
    CHECK((receiveNow(f.vmm) == ""));  // and the VMM sees the end
  }
  Hybrid g;
  g.advance(limits::HYBRID_CONNECT_TIMEOUT - 1 * kj::MILLISECONDS);
  sendAll(g.vmm, "OK 1\n");
  CHECK(g.now(kj::mv(g.result)).is<Connection>());
}

TEST_CASE("hybrid: an attempt that is dropped closes its connection") {
  Hybrid f;
  { auto dropped = kj::mv(f.result); }
  CHECK(test::comesTo([&] { return receiveNow(f.vmm) == ""; }, true));
}

TEST_CASE("hybrid: a VMM that does not run is told as for any socket") {
  Fixture f;
  CHECK(failsWith(f.now(f.connect(HybridEndpoint{kj::str(f.path), 52})), {"no such socket"}));
}

// Serial ports ------------------------------------------------------------------------------------------------------

TEST_CASE("serial: a socket is the VMM's chardev and is connected to") {
  Fixture f;
  auto listening = f.rawListen(f.path);
  auto result = f.now(f.connect(SerialEndpoint{kj::str(f.path)}));
  auto& connection = result.get<Connection>();
  CHECK(connection.transport == TransportKind::SERIAL);
  CHECK(connection.descriptorKind == DescriptorKind::SOCKET);
  auto qemu = f.rawAccept(listening);
  sendAll(qemu, "stale");
  auto pipe = newPipe(f.port, kj::mv(connection));
  kj::byte buffer[8];
  CHECK(pipe->read(buffer).bytes == 5);
  qemu = nullptr;
  CHECK(pipe->read(buffer).state == PipeState::ENDED);
}

TEST_CASE("serial: a character device is opened as a device") {
  // Of the devices that every machine has, this is the one that can be read, written and waited on.
  Fixture f;
  auto result = f.now(f.connect(SerialEndpoint{kj::str("/dev/random")}));
  auto& connection = result.get<Connection>();
  CHECK(connection.transport == TransportKind::SERIAL);
  CHECK(connection.descriptorKind == DescriptorKind::SERIAL_DEVICE);
  CHECK(connection.peer.is<UnknownPeer>());
  auto pipe = newPipe(f.port, kj::mv(connection));
  kj::byte buffer[8];
  CHECK(pipe->read(buffer).bytes == 8);
}

TEST_CASE("serial: what is no port is refused with a line that names one") {
  Fixture f;
  auto open = [&](kj::StringPtr path) { return f.now(f.connect(SerialEndpoint{kj::str(path)})); };
  CHECK(failsWith(open("/dev/null"), {"/dev/null", "another kind of device", "/dev/virtio-ports/"}));
  CHECK(failsWith(open("/dev/ptmx"), {"a terminal"}));
  CHECK(failsWith(open(f.dir.path()), {"a folder"}));
  CHECK(failsWith(open("/proc/version"), {"neither a socket nor a device"}));
  CHECK(failsWith(open(f.dir.file("none")), {"no such port", "virtserialport"}));
}

TEST_CASE("serial: the kernel's errors each have a line that says what to do") {
  CHECK(isLineWith(serialError("/dev/vport0p1", EBUSY),
                   {"another process has the port open", "postern-agent doctor", "fuser -v /dev/vport0p1"}));
  CHECK(isLineWith(serialError("/dev/vport0p1", EACCES), {"permission", "AppArmor or SELinux"}));
  CHECK(isLineWith(serialError("/dev/vport0p1", ENODEV), {"gone"}));
  CHECK(isLineWith(serialError("/dev/vport0p1", EIO), {"Input/output error"}));
  CHECK(isLineWith(serialError("/dev/vport0p1", 9999), {"unknown error"}));
}

// vsock, as far as no socket is needed ------------------------------------------------------------------------------

TEST_CASE("vsock: `any` is nothing to connect to") {
  Fixture f;
  CHECK(failsWith(f.now(f.connect(VsockEndpoint{CID_ANY, 9700})), {"vsock:any", "vsock:host"}));
}

TEST_CASE("vsock: the kernel's errors each have a line that says what to do") {
  VsockEndpoint endpoint = {42, 9700};
  CHECK(isLineWith(vsockConnectError(endpoint, ECONNRESET), {"context id 42", "9700", "nobody listens"}));
  CHECK(isLineWith(vsockConnectError(endpoint, ETIMEDOUT), {"no answer in time"}));
  CHECK(isLineWith(vsockConnectError(endpoint, ENODEV), {"vhost_vsock", "vmw_vsock_virtio_transport"}));
  CHECK(isLineWith(vsockConnectError(endpoint, EAFNOSUPPORT), {"module vsock"}));
  CHECK(isLineWith(vsockConnectError(endpoint, EPERM), {"permission"}));
  CHECK(isLineWith(vsockConnectError(endpoint, EINVAL), {"Invalid argument"}));
}

}  // namespace
}  // namespace postern
