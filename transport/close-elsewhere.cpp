#include "transport/close-elsewhere.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace postern {

namespace {

constexpr size_t STACK_BYTES = size_t(256) << 10;
// A thread that closes in a burst costs less than one for each.
constexpr auto IDLE = std::chrono::milliseconds(500);

// Its sender may make it linger again until the last moment: he has a thread for that.
void doNotLinger(int socket) {
  linger now{};
  socklen_t size = sizeof(now);
  if (getsockopt(socket, SOL_SOCKET, SO_LINGER, &now, &size) != 0 || now.l_onoff == 0 || now.l_linger == 0) return;
  now = {};
  setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

class Closers {
 public:
  void add(int fd) {
    std::lock_guard lock(mutex);
    waiting.push_back(fd);
    if (waiting.size() > idle && threads < MAX_CLOSERS && start()) ++threads;
    added.notify_one();
  }

 private:
  std::mutex mutex;
  std::condition_variable added;
  std::deque<int> waiting;
  unsigned threads = 0;
  unsigned idle = 0;

  bool start() {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    auto begin = [](void* argument) -> void* {
      static_cast<Closers*>(argument)->work();
      return nullptr;
    };
    int error = pthread_create(&thread, &attributes, begin, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return error == 0;
  }

  void work() {
    std::unique_lock lock(mutex);
    while (hasWork(lock)) {
      int fd = waiting.front();
      waiting.pop_front();
      lock.unlock();
      doNotLinger(fd);
      ::close(fd);
      lock.lock();
    }
    --threads;
  }

  // False: there was none for a while.
  bool hasWork(std::unique_lock<std::mutex>& lock) {
    ++idle;
    bool has = added.wait_for(lock, IDLE, [this] { return !waiting.empty(); });
    --idle;
    return has;
  }
};

struct AllClosers {
  Closers sockets, files;
  AllClosers* before;  // of the process that this one was forked from
};

std::atomic<AllClosers*> current = nullptr;

// Never destroyed: their threads use them to the process's end.
AllClosers& allClosers() {
  static bool const made = [] {
    current = new AllClosers{{}, {}, nullptr};
    // A child has none of the threads.
    pthread_atfork(nullptr, nullptr, [] { current = new AllClosers{{}, {}, current}; });
    return true;
  }();
  (void)made;
  return *current;
}

}  // namespace

// T92
void closeElsewhere(kj::AutoCloseFd fd) {
  if (fd.get() < 0) return;
  auto& all = allClosers();
  auto& closers = isSocket(fd) ? all.sockets : all.files;
  closers.add(fd.release());
}

bool isSocket(int fd) {
  int type;
  socklen_t size = sizeof(type);
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

}  // namespace postern
