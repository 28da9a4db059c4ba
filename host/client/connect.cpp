// connectToSocket(): from a path to a socket, or to a line that says what to do.

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "host/client/control-client.h"
#include "transport/endpoint.h"
#include "transport/unix-socket.h"

namespace postern::client {

namespace {

// A listener whose queue is full is asked again this soon.
constexpr auto QUEUE_FULL_RETRY = 10 * kj::MILLISECONDS;

// Whose group may ask posternd; "postern" where that cannot be seen.
kj::String groupOf(kj::StringPtr path) {
  struct stat status {};
  if (stat(path.cStr(), &status) == 0) {
    if (auto* entry = getgrgid(status.st_gid)) return kj::str(entry->gr_name);
    return kj::str(status.st_gid);
  }
  return kj::str("postern");
}

Failure whyNot(kj::StringPtr path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return failure(FailureKind::FAILED, kj::str("posternd is not running (no ", path, "); systemctl start posternd"));
    case ECONNREFUSED:
      return failure(FailureKind::FAILED,
                     kj::str("posternd is not running (nobody listens at ", path, "); systemctl start posternd"));
    case EACCES:
    case EPERM: {
      auto group = groupOf(path);
      return failure(FailureKind::FAILED, kj::str("no right to use ", path, ": it is for root and for group '", group,
                                                  "'; usermod -aG ", group, " USER, and log in again"));
    }
    default:
      return failure(FailureKind::FAILED, kj::str("cannot connect to ", path, ": ", strerror(error)));
  }
}

}  // namespace

kj::Promise<Outcome<kj::AutoCloseFd>> connectToSocket(kj::Timer& timer, kj::StringPtr path) {
  using Result = Outcome<kj::AutoCloseFd>;
  if (path.size() > MAX_SOCKET_PATH_BYTES) {
    return Result(failure(FailureKind::INVALID, kj::str("the path of a socket has at most ", MAX_SOCKET_PATH_BYTES,
                                                        " bytes; choose a shorter --root than that of ", path)));
  }
  auto socket = newUnixSocket();
  if (socket.get() < 0) {
    return Result(failure(FailureKind::FAILED, kj::str("cannot make a socket: ", strerror(errno))));
  }
  auto address = unixAddress(path);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return Result(kj::mv(socket));
  }
  int error = errno;
  if (error != EAGAIN && error != EINTR) return Result(whyNot(path, error));
  return timer.afterDelay(QUEUE_FULL_RETRY).then([&timer, path = kj::str(path)]() {
    return connectToSocket(timer, path);
  });
}

}  // namespace postern::client
