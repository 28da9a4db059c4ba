#include "transport/accept-queue.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/socket.h>

namespace postern {

namespace {

// Connections that one call passes over before it lets the loop turn.
constexpr unsigned MAX_PASSED_OVER = 16;

}  // namespace

AcceptFailure classifyAcceptFailure(int error) {
  switch (error) {
    case EAGAIN:
      return AcceptFailure::NOTHING;
    case ECONNABORTED:
    case ECONNRESET:
    case EINTR:
    case EPERM:  // a security module refused this one
    case EPROTO:
      return AcceptFailure::TRY_NEXT;
    case EBADF:
    case EFAULT:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
      return AcceptFailure::OUR_BUG;
    default:  // EMFILE, ENFILE, ENOMEM, ENOBUFS, and what future kernels may think of
      return AcceptFailure::PAUSE;
  }
}

AcceptQueue::AcceptQueue(kj::UnixEventPort& port, kj::Timer& timer, kj::AutoCloseFd listening, Examine examine,
                         kj::Own<void> attached)
    : timer(timer),
      attached(kj::mv(attached)),
      socket(kj::mv(listening)),
      observer(port, socket, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      examine(kj::mv(examine)),
      pausedUntil(timer.now()) {}

kj::Promise<void> AcceptQueue::whenPending() {
  if (timer.now() < pausedUntil) return timer.atTime(pausedUntil).then([this] { return whenPending(); });
  // The queue may hold connections whose edge has passed long ago, so look first.
  pollfd look = {socket, POLLIN, 0};
  int ready;
  KJ_SYSCALL(ready = ::poll(&look, 1, 0));
  // An error without a connection is waited out: accepting would find nothing, again and again.
  if (ready > 0 && (look.revents & POLLIN) != 0) return kj::READY_NOW;
  return observer.whenBecomesReadable();
}

kj::Maybe<Connection> AcceptQueue::tryAccept() {
  if (timer.now() < pausedUntil) return nullptr;
  unsigned failures = 0;
  for (unsigned i = 0; i < MAX_PASSED_OVER; ++i) {
    int accepted = ::accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted >= 0) {
      KJ_IF_MAYBE (connection, examine(kj::AutoCloseFd(accepted))) {
        ++counted.accepted;
        return kj::mv(*connection);
      }
      ++counted.foreignPeers;
      continue;
    }
    int error = errno;
    switch (classifyAcceptFailure(error)) {
      case AcceptFailure::NOTHING:
        return nullptr;
      case AcceptFailure::TRY_NEXT:
        // One that never ends is no connection's fault.
        if (++failures < MAX_PASSED_OVER) continue;
        [[fallthrough]];
      case AcceptFailure::PAUSE:
        ++counted.pauses;
        pausedUntil = timer.now() + ACCEPT_PAUSE;
        return nullptr;
      case AcceptFailure::OUR_BUG:
        kj::throwFatalException(KJ_EXCEPTION(FAILED, "accept4 on what does not listen", error));
    }
  }
  return nullptr;
}

}  // namespace postern
