#include "transport/connector.h"

#include <errno.h>
#include <sys/socket.h>

#include "transport/hybrid.h"
#include "transport/serial-port.h"
#include "transport/unix-socket.h"
#include "transport/vsock.h"

namespace postern {

namespace {

// A Unix socket gives no sign when its listen queue has room again.
constexpr auto QUEUE_RETRY = 20 * kj::MILLISECONDS;

struct UnixTarget {
  TransportKind transport;
  kj::String path;
  kj::TimePoint deadline;
};

TransportError unixError(kj::StringPtr path, int error) {
  switch (error) {
    case ENOENT:
      return transportError("cannot connect to ", path,
                            ": there is no such socket; is the program that makes it running?");
    case ECONNREFUSED:
      return transportError("cannot connect to ", path,
                            ": nobody listens there; the program that made the socket has ended, start it again");
    case EACCES:
    case EPERM:
      return transportError("cannot connect to ", path,
                            ": permission denied; this process's user needs write permission on the socket");
    case EAGAIN:
      return transportError("cannot connect to ", path,
                            ": its listen queue stayed full; the program there is stuck or serves another client");
    default:
      return transportError("cannot connect to ", path, ": ", errorWords(error));
  }
}

kj::Promise<Connected> tryUnix(kj::Timer& timer, kj::AutoCloseFd socket, UnixTarget target) {
  auto address = unixAddress(target.path);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    auto peer = unixPeer(socket);
    return Connected(Connection{target.transport, DescriptorKind::SOCKET, peer, kj::mv(socket)});
  }
  int error = errno;
  if ((error != EAGAIN && error != EINTR) || timer.now() >= target.deadline) {
    auto failure = unixError(target.path, error);
    failure.nobodyListens = error == ENOENT || error == ECONNREFUSED;
    return Connected(kj::mv(failure));
  }
  return timer.atTime(kj::min(timer.now() + QUEUE_RETRY, target.deadline))
      .then([&timer, socket = kj::mv(socket), target = kj::mv(target)]() mutable {
        return tryUnix(timer, kj::mv(socket), kj::mv(target));
      });
}

kj::Promise<Connected> connectHybrid(kj::UnixEventPort& port, kj::Timer& timer, const HybridEndpoint& endpoint,
                                     kj::Duration timeout) {
  return connectUnix(timer, TransportKind::HYBRID, endpoint.path, timeout)
      .then([&port, &timer, guestPort = endpoint.port](Connected connected) -> kj::Promise<Connected> {
        KJ_IF_MAYBE (connection, connected.tryGet<Connection>()) {
          return requestGuestPort(port, timer, kj::mv(*connection), guestPort);
        }
        return kj::mv(connected);
      });
}

}  // namespace

kj::Promise<Connected> connectUnix(kj::Timer& timer, TransportKind transport, kj::StringPtr path,
                                   kj::Duration timeout) {
  auto socket = newUnixSocket();
  if (socket.get() < 0) {
    int error = errno;
    return Connected(unixError(path, error));
  }
  return tryUnix(timer, kj::mv(socket), UnixTarget{transport, kj::str(path), timer.now() + timeout});
}

kj::Promise<Connected> connectTo(kj::UnixEventPort& port, kj::Timer& timer, const Endpoint& endpoint,
                                 ConnectOptions options) {
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(e, UnixEndpoint) return connectUnix(timer, TransportKind::UNIX, e.path, options.timeout);
    KJ_CASE_ONEOF(e, HybridEndpoint) return connectHybrid(port, timer, e, options.timeout);
    KJ_CASE_ONEOF(e, SerialEndpoint) return openSerial(timer, e.path, options.timeout);
    KJ_CASE_ONEOF(e, VsockEndpoint) {
      return connectVsock(port, timer, e, VsockConnectOptions{options.timeout, options.privilegedSource});
    }
    KJ_CASE_ONEOF(e, LibvirtEndpoint) {
      return Connected(transportError("cannot connect to ", toString(endpoint), ": only posternd asks libvirt"));
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
