#pragma once
// AuditSync: fdatasync in a thread of its own, so that a disk that takes seconds costs the loop nothing. One job at a
// time. All signals are blocked in the thread. Lives on one loop; destroying it finishes the job that runs and joins
// the thread.

#include <kj/async-unix.h>
#include <kj/async.h>
#include <kj/io.h>
#include <kj/vector.h>

namespace postern::host {

class AuditSync {
 public:
  // `port` is the loop's, and outlives this.
  explicit AuditSync(kj::UnixEventPort& port);
  ~AuditSync() noexcept(false);
  KJ_DISALLOW_COPY(AuditSync);

  // Syncs `closing`, each of which is closed afterwards, then `current`, which stays open until this object is gone or
  // a later job closes it. Gives 0, or the errno of the first that failed. Not again before that; cancelling it is
  // allowed only together with this object.
  kj::Promise<int> run(kj::Vector<kj::AutoCloseFd> closing, int current);

 private:
  struct Shared;  // with the thread

  void work();

  kj::AutoCloseFd wake;  // an eventfd: the job is done
  kj::UnixEventPort::FdObserver observer;
  kj::Own<Shared> shared;
  bool running = false;  // until the answer is there, which is later than the thread's end of it
};

}  // namespace postern::host
