#include "guest-agent/info/space-survey.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

namespace postern::guest {

namespace {

// What a worker writes: below PIPE_BUF, so that it arrives whole.
struct Report {
  uint32_t index;
  uint32_t readable;
  uint64_t totalBytes;
  uint64_t availableBytes;
};

// The place of the next mount in `order`, shared by all workers.
class SharedCounter {
 public:
  SharedCounter()
      : memory(
            mmap(nullptr, sizeof(std::atomic<uint32_t>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    KJ_REQUIRE(memory != MAP_FAILED, "no memory for a survey");
    counter = new (memory) std::atomic<uint32_t>(0);
  }
  ~SharedCounter() { munmap(memory, sizeof(std::atomic<uint32_t>)); }
  KJ_DISALLOW_COPY(SharedCounter);

  uint32_t take() { return counter->fetch_add(1); }

 private:
  void* memory;
  std::atomic<uint32_t>* counter;
};

class Survey {
 public:
  Survey(kj::ArrayPtr<const Mount> mounts, AskSpace ask)
      : mounts(mounts), ask(kj::mv(ask)), results(kj::heapArray<Surveyed>(mounts.size())) {
    for (auto& result : results) result = Stalled{};
    for (bool remote : {false, true}) {
      for (uint32_t i = 0; i < mounts.size(); ++i) {
        if (mounts[i].remote == remote) order.add(i);
      }
    }
    int fds[2];
    KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
    reports = kj::AutoCloseFd(fds[0]);
    reporting = kj::AutoCloseFd(fds[1]);
  }
  ~Survey() noexcept(false) {
    for (pid_t worker : workers) kill(worker, SIGKILL);
    for (pid_t worker : workers) waitpid(worker, nullptr, WNOHANG);
  }
  KJ_DISALLOW_COPY(Survey);

  kj::Array<Surveyed> run(kj::Duration time) {
    auto& clock = kj::systemPreciseMonotonicClock();
    auto end = clock.now() + time;
    size_t known = 0;
    while (known < mounts.size() && clock.now() < end) {
      // Nothing since the last look: every worker hangs, or there is none yet.
      if (workers.size() < MAX_SURVEY_WORKERS) startWorker();
      while (known < mounts.size() && waitReport(kj::min(kj::Duration(SURVEY_PATIENCE), end - clock.now()))) {
        takeReport();
        ++known;
      }
    }
    return kj::mv(results);
  }

 private:
  kj::ArrayPtr<const Mount> mounts;
  AskSpace ask;
  kj::Array<Surveyed> results;
  kj::Vector<uint32_t> order;
  SharedCounter next;
  kj::AutoCloseFd reports;
  kj::AutoCloseFd reporting;
  kj::Vector<pid_t> workers;

  void startWorker() {
    pid_t parent = getpid();
    pid_t worker = fork();
    if (worker == 0) work(parent);
    if (worker > 0) workers.add(worker);
  }

  [[noreturn]] void work(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    // A worker that never dies must not keep the probe's output open.
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    for (uint32_t place = next.take(); place < order.size(); place = next.take()) {
      Report report{order[place], 0, 0, 0};
      KJ_IF_MAYBE (space, ask(mounts[report.index].mountPoint)) {
        report.readable = 1;
        report.totalBytes = space->totalBytes;
        report.availableBytes = space->availableBytes;
      }
      if (write(reporting, &report, sizeof(report)) != sizeof(report)) _exit(1);
    }
    _exit(0);
  }

  bool waitReport(kj::Duration time) {
    pollfd wait{reports, POLLIN, 0};
    return poll(&wait, 1, int(kj::max(time / kj::MILLISECONDS, int64_t(0)))) > 0;
  }
  void takeReport() {
    Report report;
    ssize_t got = read(reports, &report, sizeof(report));
    KJ_ASSERT(got == sizeof(report) && report.index < results.size());
    if (report.readable == 0) {
      results[report.index] = NotReadable{};
    } else {
      results[report.index] = Space{report.totalBytes, report.availableBytes};
    }
  }
};

}  // namespace

kj::Maybe<Space> askSpace(kj::StringPtr mountPoint) {
  struct statvfs info;
  if (statvfs(mountPoint.cStr(), &info) < 0) return nullptr;
  return Space{uint64_t(info.f_blocks) * info.f_frsize, uint64_t(info.f_bavail) * info.f_frsize};
}

kj::Array<Surveyed> surveySpace(kj::ArrayPtr<const Mount> mounts, AskSpace ask, kj::Duration time) {
  return Survey(mounts, kj::mv(ask)).run(time);
}

}  // namespace postern::guest
