// Connecting to a LocalAddress, and listening on one.

#include <errno.h>
#include <kj/debug.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "transport/accept-queue.h"
#include "transport/receive.h"
#include "transport/service/local-address.h"
#include "transport/unix-listener.h"

namespace postern {

namespace {

using Result = kj::OneOf<kj::AutoCloseFd, TransportError>;

// A Unix socket gives no sign when its listen queue has room again.
constexpr auto QUEUE_RETRY = 20 * kj::MILLISECONDS;

// An address as the kernel takes it.
struct KernelAddress {
  union {
    sockaddr_storage whole{};
    sockaddr generic;
    sockaddr_in four;
    sockaddr_in6 six;
    sockaddr_un local;
  };
  socklen_t size = 0;

  explicit KernelAddress(const LocalAddress& address) {
    KJ_SWITCH_ONEOF(address) {
      KJ_CASE_ONEOF(tcp, TcpAddress) takeTcp(tcp);
      KJ_CASE_ONEOF(unix, UnixAddress) takeUnix(unix.path);
    }
  }

  int family() const { return generic.sa_family; }

 private:
  void takeTcp(const TcpAddress& tcp) {
    if (tcp.isSix) {
      six.sin6_family = AF_INET6;
      six.sin6_port = htons(tcp.port);
      memcpy(&six.sin6_addr, tcp.address, sizeof(six.sin6_addr));
      size = sizeof(six);
    } else {
      four.sin_family = AF_INET;
      four.sin_port = htons(tcp.port);
      memcpy(&four.sin_addr, tcp.address, sizeof(four.sin_addr));
      size = sizeof(four);
    }
  }
  void takeUnix(kj::StringPtr path) {
    KJ_REQUIRE(path.size() < sizeof(local.sun_path), "a path that does not fit a socket's address", path);
    local.sun_family = AF_UNIX;
    memcpy(local.sun_path, path.begin(), path.size());
    size = sizeof(local);
    if (!path.startsWith("@")) return;
    // Abstract: a NUL first, and no NUL behind, which would be part of the name.
    local.sun_path[0] = 0;
    size = socklen_t(offsetof(sockaddr_un, sun_path) + path.size());
  }
};

kj::AutoCloseFd newSocket(int family) {
  kj::AutoCloseFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int on = 1;
  if (fd.get() >= 0 && family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// In few words, since whoever asked says on what.
TransportError cannotConnect(int error) {
  bool nobody = error == ECONNREFUSED || error == ENOENT;
  switch (error) {
    case ECONNREFUSED:
      return {kj::str("connection refused"), nobody};
    case ENOENT:
      return {kj::str("there is no such socket"), nobody};
    case EACCES:
    case EPERM:
      return {kj::str("permission denied")};
    case ETIMEDOUT:
    case EAGAIN:
      return {kj::str("it does not answer")};
    default:
      return {kj::str(errorWords(error))};
  }
}

// Where nobody listens, a socket of this machine that is given the very port as its own connects to itself.
bool isOwnPeer(int socket) {
  KernelAddress here(LocalAddress(TcpAddress{})), there(LocalAddress(TcpAddress{}));
  socklen_t hereSize = sizeof(here.six), thereSize = sizeof(there.six);
  return getsockname(socket, &here.generic, &hereSize) == 0 && getpeername(socket, &there.generic, &thereSize) == 0 &&
         hereSize == thereSize && memcmp(&here.generic, &there.generic, hereSize) == 0;
}

class Attempt {
 public:
  Attempt(kj::UnixEventPort& port, const LocalAddress& address, kj::AutoCloseFd socket)
      : port(port), address(address), socket(kj::mv(socket)) {}

  kj::Promise<Result> connect() {
    if (::connect(socket, &address.generic, address.size) == 0) return connected();
    if (errno == EINPROGRESS || errno == EINTR) return whenConnected();
    if (errno != EAGAIN || address.family() != AF_UNIX) return Result(cannotConnect(errno));
    return port.getTimer().afterDelay(QUEUE_RETRY).then([this] { return connect(); });
  }

 private:
  kj::UnixEventPort& port;
  KernelAddress address;
  kj::AutoCloseFd socket;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;

  Result connected() {
    observer = nullptr;
    if (address.family() != AF_UNIX && isOwnPeer(socket)) return cannotConnect(ECONNREFUSED);
    return kj::mv(socket);
  }

  kj::Promise<Result> whenConnected() {
    auto& watching = observer.emplace(port, socket.get(), kj::UnixEventPort::FdObserver::OBSERVE_WRITE);
    return watching.whenBecomesWritable().then([this]() -> Result {
      int error = 0;
      socklen_t size = sizeof(error);
      KJ_SYSCALL(getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size));
      if (error != 0) return cannotConnect(error);
      return connected();
    });
  }
};

TransportError cannotListen(const LocalAddress& address, int error) {
  switch (error) {
    case EADDRINUSE:
      return transportError("cannot listen on ", address, ": another program listens there");
    case EADDRNOTAVAIL:
      return transportError("cannot listen on ", address, ": this machine does not have that address");
    case EACCES:
      return transportError("cannot listen on ", address, ": permission denied; ports below 1024 need root");
    default:
      return transportError("cannot listen on ", address, ": ", errorWords(error));
  }
}

void prepareTcp(int socket, int family) {
  int on = 1;
  // Connections of an earlier listener that are closing do not keep the port.
  KJ_SYSCALL(setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
  if (family != AF_INET6) return;
  // [::] is what it says, and not every IPv4 address as well.
  KJ_SYSCALL(setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
}

}  // namespace

// T96
kj::Promise<Result> connectLocal(kj::UnixEventPort& port, const LocalAddress& address, kj::Duration deadline) {
  KernelAddress kernels(address);
  auto socket = newSocket(kernels.family());
  if (socket.get() < 0) return Result(cannotConnect(errno));
  auto attempt = kj::heap<Attempt>(port, address, kj::mv(socket));
  auto connecting = attempt->connect().attach(kj::mv(attempt));
  auto late = port.getTimer().afterDelay(deadline).then([] { return Result(cannotConnect(ETIMEDOUT)); });
  return connecting.exclusiveJoin(kj::mv(late));
}

Result listenLocal(const LocalAddress& address, mode_t mode) {
  KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) {
    if (!unix->path.startsWith("@")) return listenOnName(unix->path, UnixName{mode, nullptr});
  }
  KernelAddress kernels(address);
  auto socket = newSocket(kernels.family());
  if (socket.get() < 0) return cannotListen(address, errno);
  if (kernels.family() == AF_UNIX) {
    refuseDescriptors(socket);
  } else {
    prepareTcp(socket, kernels.family());
  }
  if (bind(socket, &kernels.generic, kernels.size) < 0 || listen(socket, LISTEN_QUEUE) < 0) {
    return cannotListen(address, errno);
  }
  return kj::mv(socket);
}

void removeLocal(const LocalAddress& address) {
  KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) {
    if (!unix->path.startsWith("@")) removeDeadName(unix->path);
  }
}

}  // namespace postern
