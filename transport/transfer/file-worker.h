#pragma once
// FileWorker: a thread of a transfer's own, in which its files are touched: whatever may wait for a disk, a FUSE server
// or a network file system waits there and not on the loop.
//
// Guarantees:
//  - Nothing here waits for the thread. Destroying the worker leaves it behind: the thread sees `Stop` at its next
//  step,
//    or when the kernel lets go of it, closes the descriptors and ends; what its job uses is kept until then. A thread
//    that is still stuck when the loop is destroyed is left to the end of the process, and its job with it.
//  - Descriptors that were given to the worker are closed by the thread: closing may wait as well.
//  - Jobs are made and destroyed on the loop; between, they belong to the thread. One at a time.
// The thread is made with the worker, has all signals blocked and a stack of WORKER_STACK_BYTES.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <atomic>

namespace postern::transfer {

// Jobs have their buffers elsewhere; what is left is a few calls of libsodium and of the kernel.
constexpr size_t WORKER_STACK_BYTES = size_t(256) << 10;

class FileWorker {
 public:
  // What a job looks at between two steps, none of which takes long unless the disk does.
  using Stop = std::atomic<bool>;

  class Job {
   public:
    virtual ~Job() noexcept(false) {}
    // In the thread. Keeps what goes wrong for its owner; does not throw.
    virtual void run(const Stop& stop) noexcept = 0;
  };

  // `port` is the loop's and outlives it.
  explicit FileWorker(kj::UnixEventPort& port);
  ~FileWorker() noexcept(false);
  KJ_DISALLOW_COPY(FileWorker);

  // Gives the job back when the thread is done with it. Not before the job before it has come back; dropping the
  // promise is allowed only together with the worker.
  template <typename T>
  kj::Promise<kj::Own<T>> run(kj::Own<T> job) {
    auto done = start(kj::mv(job));
    return done.then([this]() { return takeJob().downcast<T>(); });
  }
  bool isBusy() const;
  // Workers of this loop that are gone and whose threads are not. Each keeps its job, its descriptors and a stack: who
  // makes workers for others looks here first.
  static size_t leftBehind();

  // The worker owns the descriptor from now on; the number is good until close() or the worker's end.
  int adopt(kj::AutoCloseFd fd);
  // Closes it, in the thread and behind the job that runs.
  void close(int adopted);

 private:
  struct Shared;
  struct Parked;
  kj::Own<Shared> shared;
  kj::Vector<kj::AutoCloseFd> adopted;

  kj::Promise<void> start(kj::Own<Job> job);
  kj::Own<Job> takeJob();
};

}  // namespace postern::transfer
