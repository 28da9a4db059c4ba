#include "host/daemon/live-grants.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "host/log/log.h"
#include "transport/close-elsewhere.h"

namespace postern::host {

struct LiveGrants::Live {
  GrantEntry entry;
  struct Watched {
    StrangersFd socket;
    // Neither reads nor writes: only the end of both directions is seen.
    kj::UnixEventPort::FdObserver observer;

    Watched(kj::UnixEventPort& port, kj::AutoCloseFd fd)
        : socket(kj::mv(fd)), observer(port, socket, kj::UnixEventPort::FdObserver::OBSERVE_URGENT) {}
  };
  kj::Maybe<kj::Own<Watched>> watched;  // null: over

  Live(kj::UnixEventPort& port, GrantEntry entry, kj::AutoCloseFd fd)
      : entry(kj::mv(entry)), watched(kj::heap<Watched>(port, kj::mv(fd))) {}
};

// Sessions may hold grants of an earlier posternd, whose operations are not those of ours.
LiveGrants::LiveGrants(kj::UnixEventPort& port)
    : port(port),
      lastId(uint64_t((kj::systemPreciseCalendarClock().now() - kj::UNIX_EPOCH) / kj::MICROSECONDS)),
      tasks(*this) {}
LiveGrants::~LiveGrants() noexcept(false) {}

bool LiveGrants::hasRoomFor(uid_t uid) const {
  unsigned count = 0;
  for (auto& entry : live) {
    if (entry.value->watched != nullptr && entry.value->entry.caller->uid == uid) ++count;
  }
  return count < MAX_GRANTS_PER_USER;
}

void LiveGrants::add(GrantEntry entry, int socket) {
  int copy;
  KJ_SYSCALL(copy = fcntl(socket, F_DUPFD_CLOEXEC, 3));
  auto id = entry.id;
  auto grant = kj::heap<Live>(port, kj::mv(entry), kj::AutoCloseFd(copy));
  auto& reference = *grant;
  auto over = KJ_ASSERT_NONNULL(grant->watched)->observer.whenWriteDisconnected();
  live.insert(id, kj::mv(grant));
  // Not from within the observer's own promise.
  tasks.add(over.then([]() { return kj::evalLater([]() {}); })
                .then([this, &reference]() {
                  reference.watched = nullptr;
                  return port.getTimer().afterDelay(GRANT_AFTERLIFE);
                })
                .then([this, id]() { live.erase(id); }));
}

size_t LiveGrants::size() const {
  size_t count = 0;
  for (auto& entry : live) {
    if (entry.value->watched != nullptr) ++count;
  }
  return count;
}

kj::Maybe<const GrantEntry&> LiveGrants::find(uint64_t id) const {
  KJ_IF_MAYBE (grant, live.find(id)) return (*grant)->entry;
  return nullptr;
}

// T53
unsigned LiveGrants::cutUnless(kj::FunctionParam<bool(const GrantEntry&)> allowed) {
  unsigned cut = 0;
  for (auto& entry : live) {
    KJ_IF_MAYBE (watched, entry.value->watched) {
      if (allowed(entry.value->entry)) continue;
      (void)shutdown((*watched)->socket, SHUT_RDWR);  // its end is seen like any other
      ++cut;
    }
  }
  return cut;
}

void LiveGrants::forEach(kj::FunctionParam<void(const GrantEntry&)> what) const {
  for (auto& entry : live) {
    if (entry.value->watched != nullptr) what(entry.value->entry);
  }
}

void LiveGrants::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
