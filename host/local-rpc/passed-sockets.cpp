#include "host/local-rpc/passed-sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "host/local-rpc/local-rpc.h"
#include "transport/relay/relay-end.h"

namespace postern::host {

// T92
kj::AutoCloseFd PassedSockets::standInFor(StrangersFd socket) {
  kj::AutoCloseFd standIn(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (standIn == nullptr) return standIn;
  (void)remove(standIn);  // a stand-in that had its number is gone, and nobody has taken what it stood for
  if (sockets.size() == MAX_WAITING) sockets.pop_front();
  sockets.emplace_back(standIn.get(), kj::mv(socket));
  return standIn;
}

// Null: none waits under this number.
StrangersFd PassedSockets::remove(int standIn) {
  for (auto i = sockets.begin(); i != sockets.end(); ++i) {
    if (i->first != standIn) continue;
    auto socket = kj::mv(i->second);
    sockets.erase(i);
    return socket;
  }
  return {};
}

kj::Promise<StrangersFd> PassedSockets::take(schema::Descriptor::Client descriptor) {
  return descriptor.getFd().then(
      [this, self = kj::addRef(*this), descriptor](kj::Maybe<int> fd) mutable -> kj::Promise<StrangersFd> {
        KJ_IF_MAYBE (number, fd) {
          auto passed = remove(*number);
          if (passed >= 0) return kj::mv(passed);
        }
        return takeDescriptor(kj::mv(descriptor)).then([](kj::Maybe<kj::AutoCloseFd> taken) -> StrangersFd {
          KJ_IF_MAYBE (own, taken) return kj::mv(*own);
          return {};
        });
      });
}

bool isConnectedStream(int fd) {
  if (!isStreamSocket(fd)) return false;
  struct ucred peer {};
  socklen_t size = sizeof(peer);
  // Of a Unix socket that is not connected the kernel knows no peer.
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid != static_cast<uid_t>(-1)) return true;
  struct tcp_info info {};
  size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  // Whose other end may have finished already.
  return info.tcpi_state == TCP_ESTABLISHED || info.tcpi_state == TCP_CLOSE_WAIT;
}

}  // namespace postern::host
