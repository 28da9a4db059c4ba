#include "transport/transfer/file-worker.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

struct Pipe {
  kj::AutoCloseFd read, write;
  Pipe() {
    int fds[2];
    KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
    read = kj::AutoCloseFd(fds[0]);
    write = kj::AutoCloseFd(fds[1]);
  }
};

// What a job saw, and whether it is gone.
struct Traces {
  std::atomic<bool> began{false}, ended{false}, stopped{false};
  std::atomic<bool> allBlocked{false};
  std::atomic<bool> standsBack{false};  // behind the loop
  bool destroyed = false;               // on the loop
};

// Waits in the kernel, as for a disk that stalls, until the pipe says something.
class Stuck final : public FileWorker::Job {
 public:
  Stuck(int pipe, Traces& traces) : pipe(pipe), traces(traces) {}
  ~Stuck() noexcept(false) { traces.destroyed = true; }

  void run(const FileWorker::Stop& stop) noexcept override {
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, nullptr, &set);
    traces.allBlocked = sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGINT) == 1;
    traces.standsBack = sched_getscheduler(0) == SCHED_BATCH;
    traces.began = true;
    char byte;
    ssize_t n = read(pipe, &byte, 1);
    (void)n;
    traces.stopped = stop.load();
    traces.ended = true;
  }

 private:
  int pipe;
  Traces& traces;
};

template <typename Condition>
void waitFor(kj::AsyncIoContext& io, Condition&& condition) {
  for (int i = 0; i < 5000 && !condition(); ++i) {
    io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
  }
  CHECK(condition());
}

TEST_CASE("a file worker runs one job after the other and closes what it is told to") {
  size_t before = postern::test::settled(lab::openDescriptors);
  {
    auto io = kj::setupAsyncIo();
    {
      Pipe pipe, other;
      FileWorker worker(io.unixEventPort);
      int kept = worker.adopt(kj::mv(other.read));
      int closed = worker.adopt(kj::mv(other.write));
      for (int i = 0; i < 3; ++i) {
        Traces traces;
        KJ_SYSCALL(::write(pipe.write, "x", 1));
        {
          auto job = worker.run(kj::heap<Stuck>(pipe.read, traces)).wait(io.waitScope);
          CHECK(traces.ended);
          CHECK(traces.allBlocked);
          CHECK(traces.standsBack);
          CHECK(!traces.stopped);
          CHECK(!traces.destroyed);
          CHECK(!worker.isBusy());
        }
        CHECK(traces.destroyed);
      }
      worker.close(closed);
      waitFor(io, [&]() { return fcntl(closed, F_GETFD) < 0; });
      CHECK(fcntl(kept, F_GETFD) >= 0);
    }
    waitFor(io, []() { return lab::threads() == 0; });
  }
  CHECK(postern::test::comesTo(lab::openDescriptors, before));
}

// T92
TEST_CASE("a worker whose thread is stuck is left behind, and all it uses goes when the thread does") {
  size_t before = postern::test::settled(lab::openDescriptors);
  {
    auto io = kj::setupAsyncIo();
    Traces traces;
    Pipe pipe, other;
    int adopted;
    {
      FileWorker worker(io.unixEventPort);
      adopted = worker.adopt(kj::mv(other.read));
      auto job = worker.run(kj::heap<Stuck>(pipe.read, traces));
      waitFor(io, [&]() { return traces.began.load(); });
      CHECK_THROWS(worker.run(kj::heap<Stuck>(pipe.read, traces)));
      traces.destroyed = false;
    }
    // The loop goes on, and the job lives.
    io.provider->getTimer().afterDelay(20 * kj::MILLISECONDS).wait(io.waitScope);
    CHECK(!traces.destroyed);
    CHECK(!traces.ended);
    CHECK(fcntl(adopted, F_GETFD) >= 0);
    KJ_SYSCALL(::write(pipe.write, "x", 1));
    waitFor(io, [&]() { return traces.destroyed; });
    CHECK(traces.stopped);
    CHECK(fcntl(adopted, F_GETFD) < 0);
    waitFor(io, []() { return lab::threads() == 0; });
  }
  CHECK(postern::test::comesTo(lab::openDescriptors, before));
}

// Whether it was run, and on a descriptor that was closed by then.
class Looking final : public FileWorker::Job {
 public:
  Looking(int fd, std::atomic<bool>& sawClosed) : fd(fd), sawClosed(sawClosed) {}
  void run(const FileWorker::Stop&) noexcept override {
    if (fcntl(fd, F_GETFD) < 0) sawClosed = true;
  }

 private:
  int fd;
  std::atomic<bool>& sawClosed;
};

TEST_CASE("a job that has not begun when its worker goes is not run on descriptors that are closed") {
  auto io = kj::setupAsyncIo();
  std::atomic<bool> sawClosed{false};
  for (int i = 0; i < 300; ++i) {
    Pipe pipe;
    FileWorker worker(io.unixEventPort);
    int fd = worker.adopt(kj::mv(pipe.read));
    auto job = worker.run(kj::heap<Looking>(fd, sawClosed));
    if (i % 20 == 0) waitFor(io, []() { return lab::threads() < 10; });
  }
  waitFor(io, []() { return lab::threads() == 0; });
  CHECK(!sawClosed);
}

// T92
TEST_CASE("workers that are left behind are counted until their threads have ended") {
  auto io = kj::setupAsyncIo();
  CHECK(FileWorker::leftBehind() == 0);
  Traces traces;
  Pipe pipe;
  {
    FileWorker worker(io.unixEventPort);
    auto job = worker.run(kj::heap<Stuck>(pipe.read, traces));
    waitFor(io, [&]() { return traces.began.load(); });
    CHECK(FileWorker::leftBehind() == 0);
  }
  CHECK(FileWorker::leftBehind() == 1);
  KJ_SYSCALL(::write(pipe.write, "x", 1));
  waitFor(io, []() { return FileWorker::leftBehind() == 0; });
}

}  // namespace
}  // namespace postern::transfer
