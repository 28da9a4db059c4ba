#include "transport/vsock.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/time.h>

// After <sys/socket.h>, which it needs.
#include <linux/vm_sockets.h>

#include "transport/accept-queue.h"

namespace postern {

namespace {

// All zero but what is named: the kernel refuses an address whose unused bytes are not.
sockaddr_vm vsockAddress(uint32_t cid, uint32_t port) {
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  return address;
}

int bindTo(int socket, uint32_t cid, uint32_t port) {
  auto address = vsockAddress(cid, port);
  return ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address));
}

// -1 and errno, as of socket(2).
int newVsockSocket() {
  return ::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

// The maximum first, because the kernel cuts the size down to it. A kernel that refuses keeps its default, with which
// all works, only slower.
void enlargeBuffer(int socket) {
  uint64_t bytes = VSOCK_BUFFER_BYTES;
  setsockopt(socket, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &bytes, sizeof(bytes));
  setsockopt(socket, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &bytes, sizeof(bytes));
}

// Null when the connection has broken already.
kj::Maybe<VsockPeer> vsockPeer(int socket) {
  sockaddr_vm address{};
  socklen_t size = sizeof(address);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) < 0) return nullptr;
  return VsockPeer{address.svm_cid, address.svm_port};
}

kj::Maybe<Connection> connectionOf(StrangersFd fd) {
  return vsockPeer(fd).map([&](VsockPeer peer) {
    enlargeBuffer(fd);
    return Connection{TransportKind::VSOCK, DescriptorKind::SOCKET, peer, kj::mv(fd)};
  });
}

void bindPrivileged(int socket, Random& random) {
  constexpr uint32_t COUNT = PRIVILEGED_PORT_LAST - PRIVILEGED_PORT_FIRST + 1;
  uint32_t start;
  random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&start), sizeof(start)));
  for (uint32_t i = 0; i < COUNT; ++i) {
    if (bindTo(socket, VMADDR_CID_ANY, PRIVILEGED_PORT_FIRST + (start % COUNT + i) % COUNT) == 0) return;
    if (errno != EADDRINUSE) return;  // EACCES: connect() will choose a port
  }
}

// Connecting --------------------------------------------------------------------------------------------------------

class Attempt {
 public:
  Attempt(kj::UnixEventPort& port, const VsockEndpoint& endpoint, kj::AutoCloseFd socket)
      : port(port), endpoint(endpoint), socket(kj::mv(socket)) {}

  kj::Promise<Connected> start(VsockConnectOptions options) {
    KJ_IF_MAYBE (random, options.privilegedSource) bindPrivileged(socket, *random);
    // The kernel would give up after 2 s by itself.
    auto microseconds = options.timeout / kj::MICROSECONDS;
    timeval limit = {time_t(microseconds / 1'000'000), suseconds_t(microseconds % 1'000'000)};
    setsockopt(socket, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD, &limit, sizeof(limit));

    auto address = vsockAddress(endpoint.cid, endpoint.port);
    int result = ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    if (result < 0 && errno != EINPROGRESS) return failed(errno);
    // Not before connect(): an unconnected socket counts as writable.
    observer.emplace(port, socket.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE);
    return check();
  }

  TransportError tooSlow() { return vsockConnectError(endpoint, ETIMEDOUT); }

 private:
  kj::Promise<Connected> failed(int error) { return Connected(vsockConnectError(endpoint, error)); }

  kj::Promise<Connected> check() {
    int error = 0;
    socklen_t size = sizeof(error);
    KJ_SYSCALL(getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size));
    if (error != 0) return failed(error);
    if (vsockPeer(socket) == nullptr) {
      return KJ_ASSERT_NONNULL(observer).whenBecomesWritable().then([this] { return check(); });
    }
    observer = nullptr;
    KJ_IF_MAYBE (connection, connectionOf(kj::mv(socket))) return Connected(kj::mv(*connection));
    return failed(ECONNRESET);
  }

  kj::UnixEventPort& port;
  const VsockEndpoint endpoint;
  kj::AutoCloseFd socket;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;
};

}  // namespace

kj::Promise<Connected> connectVsock(kj::UnixEventPort& port, kj::Timer& timer, const VsockEndpoint& endpoint,
                                    VsockConnectOptions options) {
  if (endpoint.cid == CID_ANY) {
    return Connected(
        transportError("cannot connect to vsock:any: it means every address and serves for listening; "
                       "write vsock:host in a guest, or the VM's context id on the host"));
  }
  kj::AutoCloseFd socket(newVsockSocket());
  if (socket.get() < 0) {
    int error = errno;
    return Connected(vsockConnectError(endpoint, error));
  }
  auto attempt = kj::heap<Attempt>(port, endpoint, kj::mv(socket));
  auto deadline =
      timer.afterDelay(options.timeout).then([&attempt = *attempt]() -> Connected { return attempt.tooSlow(); });
  auto result = attempt->start(options);
  return result.exclusiveJoin(kj::mv(deadline)).attach(kj::mv(attempt));
}

Listening listenVsock(kj::UnixEventPort& port, kj::Timer& timer, const VsockEndpoint& endpoint) {
  kj::AutoCloseFd socket(newVsockSocket());
  if (socket.get() < 0 || bindTo(socket, endpoint.cid, endpoint.port) < 0 || ::listen(socket, LISTEN_QUEUE) < 0) {
    int error = errno;
    return vsockListenError(endpoint, error);
  }
  return kj::Own<Listener>(kj::heap<AcceptQueue>(port, timer, kj::mv(socket), connectionOf, kj::Own<void>()));
}

// Errors ------------------------------------------------------------------------------------------------------------

TransportError vsockConnectError(const VsockEndpoint& endpoint, int error) {
  auto start = kj::str("cannot connect to context id ", endpoint.cid, ", port ", endpoint.port, ": ");
  switch (error) {
    case ECONNRESET:
    case ECONNREFUSED:
      return transportError(start, "nobody listens there; is Postern running at the other end, with this port?");
    case ETIMEDOUT:
      return transportError(start, "no answer in time; is the VM running, and is that its context id?");
    case ENODEV:
    case ENETUNREACH:
    case EHOSTUNREACH:
      return transportError(start,
                            "no vsock device leads there; on the host load vhost_vsock and give the VM a "
                            "vhost-vsock device with this context id, in a guest load "
                            "vmw_vsock_virtio_transport");
    case EAFNOSUPPORT:
      return transportError(start, "this kernel has no vsock; load the module vsock");
    case EACCES:
    case EPERM:
      return transportError(start, "permission denied; a security module or the sandbox forbids vsock");
    default:
      return transportError(start, errorWords(error));
  }
}

TransportError vsockListenError(const VsockEndpoint& endpoint, int error) {
  auto name = endpoint.cid == CID_ANY ? kj::str("any context id") : kj::str("context id ", endpoint.cid);
  auto start = kj::str("cannot listen on ", name, ", port ", endpoint.port, ": ");
  switch (error) {
    case EADDRINUSE:
      return transportError(start, "it is in use; stop the program that listens there, or choose another port");
    case EADDRNOTAVAIL:
      return transportError(start, "that is not an address of this machine; write vsock:any");
    case EAFNOSUPPORT:
      return transportError(start, "this kernel has no vsock; load the module vsock");
    case EACCES:
    case EPERM:
      return transportError(start, "permission denied; a port below 1024 needs CAP_NET_BIND_SERVICE");
    default:
      return transportError(start, errorWords(error));
  }
}

}  // namespace postern
