#include "transport/transfer/file-worker.h"

#include <errno.h>
#include <kj/debug.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

namespace postern::transfer {

namespace {

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

void drain(int eventFd) {
  uint64_t count;
  ssize_t n = read(eventFd, &count, sizeof(count));
  (void)n;  // nothing there: the wake-up belonged to what was drained before
}

void signalOne(int eventFd) {
  uint64_t one = 1;
  ssize_t n = write(eventFd, &one, sizeof(one));
  (void)n;  // never full: the counter holds 2^64
}

}  // namespace

// The standard library's mutex, and not KJ's cross-thread promise: ThreadSanitizer sees through this one, and not into
// libkj, which is built without it.
struct FileWorker::Shared {
  // The loop's alone.
  kj::AutoCloseFd wake = makeEventFd();  // from the thread: the job is done, or the thread has ended
  kj::UnixEventPort::FdObserver observer;
  pthread_t thread{};
  kj::Maybe<kj::Own<Job>> job;  // the thread's while `current` is set

  // Of both, under the mutex.
  std::mutex mutex;
  std::condition_variable changed;
  Job* current = nullptr;
  kj::Vector<kj::AutoCloseFd> closing;
  bool ended = false;
  Stop stop{false};

  explicit Shared(kj::UnixEventPort& port) : observer(port, wake, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}

  void work();
  bool isIdle() {
    std::lock_guard lock(mutex);
    return current == nullptr;
  }
  bool hasEnded() {
    std::lock_guard lock(mutex);
    return ended;
  }
  kj::Promise<void> whenIdle();
  kj::Promise<void> whenEnded();
};

// A job that has come does not drive the loop from its core in the middle of a record, which would leave the record's
// bytes out of the cache when the loop goes on.
void standBack() {
  sched_param parameters{};
  int refused = sched_setscheduler(0, SCHED_BATCH, &parameters);
  (void)refused;  // works as well without
}

void FileWorker::Shared::work() {
  standBack();
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [&] { return current != nullptr || !closing.empty() || stop; });
    if (!closing.empty()) {
      auto files = kj::mv(closing);
      closing = {};
      lock.unlock();
      // What had to be on the disk was synced; a close that says otherwise throws nothing here.
      for (auto& file : files) ::close(file.release());
      lock.lock();
    } else if (current != nullptr) {
      // Once it was stopped its descriptors may be closed, and their numbers belong to others.
      if (!stop) {
        lock.unlock();
        current->run(stop);
        lock.lock();
      }
      current = nullptr;
      signalOne(wake);
    } else {
      // Under the mutex: who sees `ended` may free all this once the thread has let go of it.
      ended = true;
      signalOne(wake);
      return;
    }
  }
}

kj::Promise<void> FileWorker::Shared::whenIdle() {
  return observer.whenBecomesReadable().then([this]() -> kj::Promise<void> {
    drain(wake);
    if (isIdle()) return kj::READY_NOW;
    return whenIdle();
  });
}

kj::Promise<void> FileWorker::Shared::whenEnded() {
  if (hasEnded()) return kj::READY_NOW;
  return observer.whenBecomesReadable().then([this] {
    drain(wake);
    return whenEnded();
  });
}

// A worker that is gone, until its thread is. Lives in a promise of the loop's.
struct FileWorker::Parked {
  static thread_local size_t count;  // of the loop's thread

  kj::Own<Shared> shared;

  explicit Parked(kj::Own<Shared> shared) : shared(kj::mv(shared)) { ++count; }
  ~Parked() noexcept(false) {
    --count;
    if (shared->hasEnded()) {
      pthread_join(shared->thread, nullptr);
      return;
    }
    // The loop ends before the thread does: it goes on using all this until the process ends.
    pthread_detach(shared->thread);
    static std::mutex mutex;
    static auto* const kept = new kj::Vector<kj::Own<Shared>>();
    std::lock_guard lock(mutex);
    kept->add(kj::mv(shared));
  }
  KJ_DISALLOW_COPY(Parked);
};

thread_local size_t FileWorker::Parked::count = 0;

size_t FileWorker::leftBehind() {
  return Parked::count;
}

FileWorker::FileWorker(kj::UnixEventPort& port) : shared(kj::heap<Shared>(port)) {
  pthread_attr_t attributes;
  KJ_ASSERT(pthread_attr_init(&attributes) == 0);
  KJ_DEFER(pthread_attr_destroy(&attributes));
  KJ_ASSERT(pthread_attr_setstacksize(&attributes, WORKER_STACK_BYTES) == 0);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  KJ_DEFER(pthread_sigmask(SIG_SETMASK, &before, nullptr));
  auto begin = [](void* argument) -> void* {
    static_cast<Shared*>(argument)->work();
    return nullptr;
  };
  int error = pthread_create(&shared->thread, &attributes, begin, shared.get());
  KJ_REQUIRE(error == 0, "no thread for a transfer's files", error);
}

// T92
FileWorker::~FileWorker() noexcept(false) {
  {
    std::lock_guard lock(shared->mutex);
    shared->stop = true;
    for (auto& fd : adopted) shared->closing.add(kj::mv(fd));
  }
  shared->changed.notify_one();
  auto parked = kj::heap<Parked>(kj::mv(shared));
  auto ended = parked->shared->whenEnded();
  ended.attach(kj::mv(parked)).detach([](kj::Exception&&) {});
}

bool FileWorker::isBusy() const {
  return shared->job != nullptr;
}

kj::Promise<void> FileWorker::start(kj::Own<Job> job) {
  KJ_REQUIRE(!isBusy(), "a job runs already");
  auto& raw = *job;
  shared->job = kj::mv(job);
  // The edge counts from here on.
  auto done = shared->whenIdle();
  {
    std::lock_guard lock(shared->mutex);
    shared->current = &raw;
  }
  shared->changed.notify_one();
  return done;
}

kj::Own<FileWorker::Job> FileWorker::takeJob() {
  auto job = kj::mv(KJ_ASSERT_NONNULL(shared->job));
  shared->job = nullptr;
  return job;
}

int FileWorker::adopt(kj::AutoCloseFd fd) {
  int raw = fd.get();
  adopted.add(kj::mv(fd));
  return raw;
}

void FileWorker::close(int raw) {
  for (auto& fd : adopted) {
    if (fd.get() != raw) continue;
    {
      std::lock_guard lock(shared->mutex);
      shared->closing.add(kj::mv(fd));
    }
    shared->changed.notify_one();
    if (&fd != &adopted.back()) fd = kj::mv(adopted.back());
    adopted.removeLast();
    return;
  }
}

}  // namespace postern::transfer
