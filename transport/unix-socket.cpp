#include "transport/unix-socket.h"

#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

namespace postern {

kj::AutoCloseFd newUnixSocket() {
  return kj::AutoCloseFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_un unixAddress(kj::StringPtr path) {
  sockaddr_un address{};
  KJ_REQUIRE(path.size() < sizeof(address.sun_path), "a path that does not fit a socket's address", path);
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.begin(), path.size());
  return address;
}

UnixPeer unixPeer(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  KJ_SYSCALL(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size));
  return {credentials.uid, credentials.pid};
}

}  // namespace postern
