#include "guest-agent/services/connect-as.h"

#include <errno.h>
#include <kj/debug.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "guest-agent/services/acting-as.h"
#include "transport/unix-socket.h"

namespace postern::guest {

namespace {

using Result = kj::OneOf<kj::AutoCloseFd, TransportError>;

// A Unix socket gives no sign when its listen queue has room again.
constexpr auto QUEUE_RETRY = 20 * kj::MILLISECONDS;

struct Name {
  sockaddr_un address;
  socklen_t size;
};

// The path fits (parseLocalAddress() has checked it).
Name nameOf(const UnixAddress& address) {
  Name name{};
  name.address.sun_family = AF_UNIX;
  KJ_REQUIRE(address.path.size() < sizeof(name.address.sun_path));
  memcpy(name.address.sun_path, address.path.begin(), address.path.size());
  size_t size = offsetof(sockaddr_un, sun_path) + address.path.size();
  if (address.path[0] == '@') {
    name.address.sun_path[0] = 0;
  } else {
    ++size;
  }
  name.size = socklen_t(size);
  return name;
}

struct Attempt {
  Name name;
  Identity identity;
  kj::Array<gid_t> groups;
  kj::TimePoint deadline;
};

// 0, or the error number.
int connectOnce(int socket, const Attempt& attempt) {
  ActingAs acting(attempt.identity, attempt.groups);
  if (acting.error() != 0) return acting.error();
  auto* address = reinterpret_cast<const sockaddr*>(&attempt.name.address);
  return connect(socket, address, attempt.name.size) == 0 ? 0 : errno;
}

kj::StringPtr wordsFor(int error) {
  switch (error) {
    case ENOENT:
      return "there is no such socket";
    case ECONNREFUSED:
      return "connection refused";
    case EAGAIN:
      return "its listen queue stayed full";
    default:
      return errorWords(error);
  }
}

kj::Promise<Result> tryConnect(kj::Timer& timer, kj::AutoCloseFd socket, Attempt attempt) {
  int error = connectOnce(socket, attempt);
  if (error == 0) return Result(kj::mv(socket));
  if ((error != EAGAIN && error != EINTR) || timer.now() >= attempt.deadline) {
    return Result(transportError(wordsFor(error)));
  }
  auto again = kj::min(timer.now() + QUEUE_RETRY, attempt.deadline);
  return timer.atTime(again).then([&timer, socket = kj::mv(socket), attempt = kj::mv(attempt)]() mutable {
    return tryConnect(timer, kj::mv(socket), kj::mv(attempt));
  });
}

}  // namespace

// T99
kj::Promise<Result> connectAs(kj::UnixEventPort& port, const UnixAddress& address, const OpenerUser& user,
                              kj::Duration deadline) {
  KJ_IF_MAYBE (identity, user.identity) {
    auto socket = newUnixSocket();
    if (socket.get() < 0) {
      int error = errno;
      return Result(transportError(errorWords(error)));
    }
    auto& timer = port.getTimer();
    return tryConnect(timer, kj::mv(socket),
                      Attempt{nameOf(address), *identity, kj::heapArray(user.groups.asPtr()), timer.now() + deadline});
  }
  auto own = kj::heap<LocalAddress>(UnixAddress{kj::str(address.path)});
  auto connecting = connectLocal(port, *own, deadline);
  return connecting.attach(kj::mv(own));
}

}  // namespace postern::guest
