#include "transport/service/connect-as.h"

#include <errno.h>
#include <kj/debug.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "transport/receive.h"
#include "transport/service/acting-as.h"
#include "transport/transfer/file-worker.h"
#include "transport/unix-socket.h"

namespace postern {

namespace {

using Result = kj::OneOf<StrangersFd, TransportError>;

// A Unix socket gives no sign when its listen queue has room again.
constexpr auto QUEUE_RETRY = 20 * kj::MILLISECONDS;
// Threads that a dead file system may keep.
constexpr size_t MAX_ATTEMPTS_LEFT = 8;

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

// One connect(2), in a thread: the lookup of the path may wait for a file system that does not answer. Made and
// destroyed on the loop.
class Attempt final : public transfer::FileWorker::Job {
 public:
  static thread_local size_t left;  // that nobody waits for any more

  Attempt(kj::AutoCloseFd socket, Name name, const kj::Maybe<ServiceUser>& user)
      : socket(kj::mv(socket)), name(name), user(user.map([](const ServiceUser& who) {
          return ServiceUser{who.identity, kj::heapArray(who.groups.asPtr())};
        })) {}
  ~Attempt() noexcept(false) {
    if (isLeft) --left;
  }
  KJ_DISALLOW_COPY(Attempt);

  void run(const transfer::FileWorker::Stop&) noexcept override { error = connectOnce(); }
  void leave() {
    isLeft = true;
    ++left;
  }

  StrangersFd socket;
  int error = 0;

 private:
  const Name name;
  const kj::Maybe<ServiceUser> user;
  bool isLeft = false;

  int connectOnce() {
    kj::Maybe<ActingAs> acting;
    KJ_IF_MAYBE (who, user) {
      int refused = acting.emplace(who->identity, who->groups).error();
      if (refused != 0) return refused;
    }
    auto* address = reinterpret_cast<const sockaddr*>(&name.address);
    return connect(socket, address, name.size) == 0 ? 0 : errno;
  }
};
thread_local size_t Attempt::left = 0;

kj::StringPtr wordsFor(int error) {
  switch (error) {
    case ENOENT:
      return "there is no such socket";
    case ECONNREFUSED:
      return "connection refused";
    case EAGAIN:
      return "its listen queue stayed full";
    case ETIMEDOUT:
      return "its file system does not answer";
    default:
      return errorWords(error);
  }
}

// Attempts, one after the other while the listen queue is full.
class Connecting {
 public:
  Connecting(kj::UnixEventPort& port, kj::Own<Attempt> attempt)
      : timer(port.getTimer()), worker(port), attempt(kj::mv(attempt)) {}
  ~Connecting() noexcept(false) {
    KJ_IF_MAYBE (stuck, running) stuck->leave();
  }
  KJ_DISALLOW_COPY(Connecting);

  kj::Promise<Result> run(kj::TimePoint deadline) {
    auto late = timer.atTime(deadline).then([this] { return Result(transportError(wordsFor(error))); });
    return tryOnce().exclusiveJoin(kj::mv(late));
  }

 private:
  kj::Timer& timer;
  transfer::FileWorker worker;
  kj::Maybe<kj::Own<Attempt>> attempt;  // null: in the thread
  kj::Maybe<Attempt&> running;
  int error = ETIMEDOUT;  // of the last one

  kj::Promise<Result> tryOnce() {
    auto job = kj::mv(KJ_ASSERT_NONNULL(attempt));
    attempt = nullptr;
    running = *job;
    return worker.run(kj::mv(job)).then([this](kj::Own<Attempt> done) { return tried(kj::mv(done)); });
  }
  kj::Promise<Result> tried(kj::Own<Attempt> done) {
    running = nullptr;
    error = done->error;
    if (error == 0) return Result(kj::mv(done->socket));
    if (error != EAGAIN && error != EINTR) return Result(transportError(wordsFor(error)));
    attempt = kj::mv(done);
    return timer.afterDelay(QUEUE_RETRY).then([this] { return tryOnce(); });
  }
};

kj::Promise<Result> connectUnix(kj::UnixEventPort& port, const UnixAddress& address, const kj::Maybe<ServiceUser>& user,
                                kj::Duration deadline) {
  if (Attempt::left >= MAX_ATTEMPTS_LEFT) {
    return Result(transportError("connections before it still wait for a file system that does not answer"));
  }
  auto socket = newUnixSocket();
  if (socket.get() < 0) {
    int error = errno;
    return Result(transportError(errorWords(error)));
  }
  refuseDescriptors(socket);
  auto connecting = kj::heap<Connecting>(port, kj::heap<Attempt>(kj::mv(socket), nameOf(address), user));
  return connecting->run(port.getTimer().now() + deadline).attach(kj::mv(connecting));
}

}  // namespace

// T92, T99
kj::Promise<Result> connectLocalAs(kj::UnixEventPort& port, const LocalAddress& address,
                                   const kj::Maybe<ServiceUser>& user, kj::Duration deadline) {
  KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) {
    return kj::evalNow([&] { return connectUnix(port, *unix, user, deadline); });
  }
  return connectLocal(port, address, deadline).then([](auto outcome) -> Result {
    KJ_IF_MAYBE (error, outcome.template tryGet<TransportError>()) return kj::mv(*error);
    return StrangersFd(kj::mv(outcome.template get<kj::AutoCloseFd>()));
  });
}

// T99
kj::OneOf<ProgramSockets, TransportError> newProgramSockets(const kj::Maybe<ServiceUser>& user) {
  kj::Maybe<ActingAs> acting;
  KJ_IF_MAYBE (who, user) {
    int error = acting.emplace(who->identity, who->groups).error();
    if (error != 0) return transportError(errorWords(error));
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
    int error = errno;
    return transportError(errorWords(error));
  }
  ProgramSockets sockets{kj::AutoCloseFd(ends[0]), kj::AutoCloseFd(ends[1])};
  refuseDescriptors(sockets.own);
  return kj::mv(sockets);
}

}  // namespace postern
