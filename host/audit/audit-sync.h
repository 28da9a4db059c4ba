#pragma once
// AuditSync: fdatasync in a thread of its own, so that a disk that takes seconds costs the loop nothing. Jobs are done
// one after the other, in order. All signals are blocked in the thread. Destroying it finishes the jobs first.

#include <kj/async.h>
#include <kj/io.h>
#include <kj/mutex.h>
#include <kj/thread.h>
#include <kj/vector.h>

namespace postern::host {

class AuditSync {
 public:
  AuditSync();
  ~AuditSync() noexcept(false);
  KJ_DISALLOW_COPY(AuditSync);

  // Syncs `closing` (each is closed afterwards), then `current`, which outlives this object or a later job that closes
  // it. Gives 0, or the errno of the first that failed.
  kj::Promise<int> run(kj::Vector<kj::AutoCloseFd> closing, int current);

 private:
  struct Job {
    kj::Vector<kj::AutoCloseFd> closing;
    int current;
    kj::Own<kj::CrossThreadPromiseFulfiller<int>> fulfiller;
  };
  struct Queue {
    kj::Vector<Job> jobs;
    bool ending = false;
  };
  void work();

  kj::MutexGuarded<Queue> queue;
  kj::Own<kj::Thread> thread;
};

}  // namespace postern::host
