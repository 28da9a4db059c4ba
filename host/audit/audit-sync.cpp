#include "host/audit/audit-sync.h"

#include <errno.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace postern::host {

// The standard library's mutex and thread, and not KJ's cross-thread promise: ThreadSanitizer sees through these, and
// not into libkj, which is built without it.
struct AuditSync::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  kj::Vector<kj::AutoCloseFd> closing;
  int current = -1;
  bool pending = false;
  bool ending = false;
  int error = 0;  // the last job's
  std::thread thread;
};

namespace {

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

int syncOne(int fd) {
  int result;
  do {
    result = fdatasync(fd);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

}  // namespace

AuditSync::AuditSync(kj::UnixEventPort& port)
    : wake(makeEventFd()),
      observer(port, wake, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      shared(kj::heap<Shared>()) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  KJ_DEFER(pthread_sigmask(SIG_SETMASK, &before, nullptr));
  shared->thread = std::thread([this] { work(); });
}

AuditSync::~AuditSync() noexcept(false) {
  {
    std::lock_guard lock(shared->mutex);
    shared->ending = true;
  }
  shared->changed.notify_one();
  shared->thread.join();
}

kj::Promise<int> AuditSync::run(kj::Vector<kj::AutoCloseFd> closing, int current) {
  KJ_REQUIRE(!running, "a sync runs already");
  running = true;
  {
    std::lock_guard lock(shared->mutex);
    shared->closing = kj::mv(closing);
    shared->current = current;
    shared->pending = true;
  }
  shared->changed.notify_one();
  return observer.whenBecomesReadable().then([this] {
    running = false;
    uint64_t count;
    ssize_t n = read(wake, &count, sizeof(count));
    KJ_ASSERT(n == ssize_t(sizeof(count)), "the eventfd woke without a count", errno);
    std::lock_guard lock(shared->mutex);
    return shared->error;
  });
}

void AuditSync::work() {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    shared->changed.wait(lock, [&] { return shared->pending || shared->ending; });
    if (!shared->pending) return;
    auto closing = kj::mv(shared->closing);
    int current = shared->current;
    lock.unlock();
    int error = 0;
    for (auto& fd : closing) {
      int failed = syncOne(fd);
      if (error == 0) error = failed;
    }
    closing.clear();
    int failed = syncOne(current);
    if (error == 0) error = failed;
    lock.lock();
    shared->error = error;
    shared->pending = false;
    uint64_t one = 1;
    ssize_t n = write(wake, &one, sizeof(one));  // never full: the counter holds 2^64
    (void)n;
  }
}

}  // namespace postern::host
