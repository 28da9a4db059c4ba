#include "host/local-rpc/passed-tcp.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "host/local-rpc/local-rpc.h"
#include "transport/close-elsewhere.h"
#include "transport/relay/relay-end.h"

namespace postern::host {

PassedTcp::~PassedTcp() noexcept(false) {
  for (auto& socket : sockets) closeElsewhere(kj::mv(socket.second));
}

// T92
kj::AutoCloseFd PassedTcp::standInFor(kj::AutoCloseFd socket) {
  kj::AutoCloseFd standIn(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (standIn == nullptr) {
    closeElsewhere(kj::mv(socket));
    return nullptr;
  }
  cameAlone(standIn);
  sockets.emplace(standIn.get(), kj::mv(socket));
  return standIn;
}

void PassedTcp::cameAlone(int descriptor) {
  auto stale = sockets.find(descriptor);
  if (stale == sockets.end()) return;
  closeElsewhere(kj::mv(stale->second));
  sockets.erase(stale);
}

kj::Promise<kj::Maybe<kj::AutoCloseFd>> PassedTcp::take(schema::Descriptor::Client descriptor) {
  return descriptor.getFd().then([this, self = kj::addRef(*this),
                                  descriptor](kj::Maybe<int> fd) mutable -> kj::Promise<kj::Maybe<kj::AutoCloseFd>> {
    KJ_IF_MAYBE (number, fd) {
      auto passed = sockets.find(*number);
      if (passed != sockets.end()) {
        auto socket = kj::mv(passed->second);
        sockets.erase(passed);
        return kj::Maybe<kj::AutoCloseFd>(kj::mv(socket));
      }
    }
    return takeDescriptor(kj::mv(descriptor));
  });
}

StrangersSocket::~StrangersSocket() noexcept(false) {
  if (fd != nullptr && !closesAtOnce(fd)) closeElsewhere(kj::mv(fd));
}

StrangersSocket& StrangersSocket::operator=(StrangersSocket&& other) {
  StrangersSocket before(kj::mv(fd));
  fd = kj::mv(other.fd);
  return *this;
}

kj::AutoCloseFd StrangersSocket::forLoop() {
  if (closesAtOnce(fd)) return kj::mv(fd);
  return kj::AutoCloseFd(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

bool isConnectedStream(int fd) {
  if (!isStreamSocket(fd)) return false;
  struct ucred peer {};
  socklen_t size = sizeof(peer);
  // Of a Unix socket that is not connected the kernel knows no peer.
  if (closesAtOnce(fd))
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid != static_cast<uid_t>(-1);
  struct tcp_info info {};
  size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  // Whose other end may have finished already.
  return info.tcpi_state == TCP_ESTABLISHED || info.tcpi_state == TCP_CLOSE_WAIT;
}

}  // namespace postern::host
