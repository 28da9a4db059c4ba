#include "host/client/quiet-thread.h"

#include <signal.h>

namespace postern::client {

namespace {

// A thread that starts in this scope inherits the mask.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
  KJ_DISALLOW_COPY(SignalsBlocked);

 private:
  sigset_t before;
};

}  // namespace

kj::Own<kj::Thread> newQuietThread(kj::Function<void()> run) {
  SignalsBlocked blocked;
  return kj::heap<kj::Thread>(kj::mv(run));
}

}  // namespace postern::client
