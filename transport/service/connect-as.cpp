#include "transport/service/connect-as.h"

#include <errno.h>
#include <kj/debug.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "transport/service/acting-as.h"
#include "transport/unix-socket.h"

namespace postern {

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

kj::Promise<Result> connectLocalAs(kj::UnixEventPort& port, const LocalAddress& address,
                                   const kj::Maybe<ServiceUser>& user, kj::Duration deadline) {
  KJ_IF_MAYBE (who, user) {
    KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) {
      auto socket = newUnixSocket();
      if (socket.get() < 0) return Result(transportError(errorWords(errno)));
      auto& timer = port.getTimer();
      return tryConnect(
          timer, kj::mv(socket),
          Attempt{nameOf(*unix), who->identity, kj::heapArray(who->groups.asPtr()), timer.now() + deadline});
    }
  }
  return connectLocal(port, address, deadline);
}

}  // namespace postern
