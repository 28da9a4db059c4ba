#include "transport/listener.h"

#include "transport/unix-listener.h"
#include "transport/vsock.h"

namespace postern {

kj::Promise<Connection> Listener::accept() {
  return whenPending().then([this]() -> kj::Promise<Connection> {
    KJ_IF_MAYBE (connection, tryAccept()) return kj::mv(*connection);
    return accept();
  });
}

Listening listenOn(kj::UnixEventPort& port, kj::Timer& timer, const Endpoint& endpoint, ListenOptions options) {
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(e, UnixEndpoint) return listenUnix(port, timer, TransportKind::UNIX, e.path, options);
    KJ_CASE_ONEOF(e, HybridEndpoint) {
      return listenUnix(port, timer, TransportKind::HYBRID, e.guestToHostPath(), options);
    }
    KJ_CASE_ONEOF(e, SerialEndpoint) {
      return transportError("cannot listen on ", toString(endpoint),
                            ": a serial port is opened, not listened on; connect to it");
    }
    KJ_CASE_ONEOF(e, VsockEndpoint) return listenVsock(port, timer, e);
    KJ_CASE_ONEOF(e, LibvirtEndpoint) {
      return transportError("cannot listen on ", toString(endpoint), ": only posternd asks libvirt");
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
