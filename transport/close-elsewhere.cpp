#include "transport/close-elsewhere.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <mutex>

namespace postern {

namespace {

constexpr size_t STACK_BYTES = size_t(256) << 10;

class Closer {
 public:
  void add(int fd) {
    std::lock_guard lock(mutex);
    waiting.push_back(fd);
    if (!running) running = start();
  }

 private:
  std::mutex mutex;
  std::deque<int> waiting;
  bool running = false;

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
      static_cast<Closer*>(argument)->work();
      return nullptr;
    };
    int error = pthread_create(&thread, &attributes, begin, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return error == 0;
  }

  void work() {
    std::unique_lock lock(mutex);
    while (!waiting.empty()) {
      int fd = waiting.front();
      waiting.pop_front();
      lock.unlock();
      ::close(fd);
      lock.lock();
    }
    running = false;
  }
};

}  // namespace

void closeElsewhere(kj::AutoCloseFd fd) {
  // Never destroyed: its thread uses it to the process's end.
  static auto& closer = *new Closer();
  if (fd.get() >= 0) closer.add(fd.release());
}

bool closesAtOnce(int fd) {
  int domain = -1;
  socklen_t size = sizeof(domain);
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

}  // namespace postern
