#include "transport/hybrid.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

#include "protocol/limits.h"
#include "transport/printable.h"
#include "transport/receive.h"

namespace postern {

namespace {

// "OK " and one to ten digits.
// T38
bool isOk(kj::ArrayPtr<const char> untrustedLine) {
  if (untrustedLine.size() < 4 || untrustedLine.size() > 13 || memcmp(untrustedLine.begin(), "OK ", 3) != 0) {
    return false;
  }
  for (char c : untrustedLine.slice(3, untrustedLine.size())) {
    if (c < '0' || c > '9') return false;
  }
  return true;
}

class Request {
 public:
  Request(kj::UnixEventPort& port, Connection connection, uint32_t guestPort)
      : guestPort(guestPort), connection(kj::mv(connection)) {
    observer.emplace(port, this->connection.fd.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ);
  }

  kj::Promise<Connected> send() {
    auto text = kj::str("CONNECT ", guestPort, "\n");
    ssize_t sent = ::send(connection.fd, text.begin(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != static_cast<ssize_t>(text.size())) return Connected(refused());
    return receive();
  }

  TransportError tooSlow() {
    return failure("gave no answer in time; the guest is stopped, or still starting: try again");
  }

 private:
  template <typename... Parts>
  TransportError failure(Parts&&... why) {
    return transportError("cannot reach port ", guestPort, " of the guest: the VMM ", kj::fwd<Parts>(why)...);
  }
  TransportError refused() { return failure("refused; does postern-agent run there and listen on this port?"); }

  kj::Promise<Connected> receive() {
    for (;;) {
      auto room = line + used;
      ssize_t seen = recv(connection.fd, room, sizeof(line) - used, MSG_PEEK | MSG_DONTWAIT);
      if (seen < 0 && errno == EINTR) continue;
      if (seen < 0 && errno == EAGAIN) {
        return KJ_ASSERT_NONNULL(observer).whenBecomesReadable().then([this] { return receive(); });
      }
      if (seen <= 0) return Connected(refused());
      auto newline = static_cast<char*>(memchr(room, '\n', static_cast<size_t>(seen)));
      size_t wanted = newline == nullptr ? static_cast<size_t>(seen) : static_cast<size_t>(newline - room) + 1;
      // Taken over themselves: what has been seen is in the socket's queue and cannot have changed.
      ssize_t taken = receiveBytes(connection.fd, kj::arrayPtr(reinterpret_cast<kj::byte*>(room), wanted));
      if (taken != static_cast<ssize_t>(wanted)) return Connected(refused());
      used += wanted;
      if (newline != nullptr) return finish();
      if (used == sizeof(line)) return Connected(notAVmm());
    }
  }

  TransportError notAVmm() {
    return failure("answered '", printable(kj::arrayPtr(line, used)),
                   "' in place of OK; is this the vsock socket of Firecracker or Cloud Hypervisor?");
  }

  kj::Promise<Connected> finish() {
    if (!isOk(kj::arrayPtr(line, used - 1))) return Connected(notAVmm());
    observer = nullptr;
    return Connected(kj::mv(connection));
  }

  const uint32_t guestPort;
  Connection connection;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;
  char line[MAX_HYBRID_REPLY_BYTES];
  size_t used = 0;
};

}  // namespace

kj::Promise<Connected> requestGuestPort(kj::UnixEventPort& port, kj::Timer& timer, Connection connection,
                                        uint32_t guestPort) {
  auto request = kj::heap<Request>(port, kj::mv(connection), guestPort);
  auto deadline = timer.afterDelay(limits::HYBRID_CONNECT_TIMEOUT).then([&request = *request]() -> Connected {
    return request.tooSlow();
  });
  auto result = request->send();
  return result.exclusiveJoin(kj::mv(deadline)).attach(kj::mv(request));
}

}  // namespace postern
