#include "host/metrics/process-metrics.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "host/files/files.h"

namespace postern::host {

namespace {

constexpr size_t MAX_STAT_BYTES = 4096;

// The field with that number, counted from 1, of a line of numbers.
kj::Maybe<double> field(kj::StringPtr line, unsigned number) {
  for (unsigned i = 1; i < number; ++i) {
    KJ_IF_MAYBE (space, line.findFirst(' ')) {
      line = line.slice(*space + 1);
    } else {
      return nullptr;
    }
  }
  return strtod(line.cStr(), nullptr);
}

kj::Maybe<kj::String> read(kj::StringPtr path, size_t maxBytes) {
  auto text = readFile(path, maxBytes);
  if (text.is<FileError>()) return nullptr;
  return kj::mv(text.get<kj::String>());
}

double secondsOf(clockid_t clock) {
  struct timespec time;
  if (clock_gettime(clock, &time) != 0) return 0;
  return double(time.tv_sec) + double(time.tv_nsec) / 1e9;
}

// proc(5): the 22nd field of /proc/PID/stat, in ticks since the boot. Behind the name, which may hold anything.
kj::Maybe<double> startTime() {
  KJ_IF_MAYBE (text, read("/proc/self/stat", MAX_STAT_BYTES)) {
    KJ_IF_MAYBE (end, text->findLast(')')) {
      KJ_IF_MAYBE (ticks, field(text->slice(*end + 2), 20)) {
        auto age = secondsOf(CLOCK_BOOTTIME) - *ticks / double(sysconf(_SC_CLK_TCK));
        return secondsOf(CLOCK_REALTIME) - age;
      }
    }
  }
  return nullptr;
}

kj::Maybe<uint64_t> openDescriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return nullptr;
  uint64_t count = 0;
  while (auto* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count - 1;  // without the one that reads
}

double seconds(const struct timeval& time) {
  return double(time.tv_sec) + double(time.tv_usec) / 1e6;
}

}  // namespace

void writeProcessMetrics(Exposition& to) {
  static const kj::Maybe<double> STARTED = startTime();  // the same at every look
  KJ_IF_MAYBE (started, STARTED) {
    to.gauge("process_start_time_seconds", "When posternd was started, in seconds since 1970.", *started);
  }
  KJ_IF_MAYBE (memory, read("/proc/self/statm", MAX_STAT_BYTES)) {
    auto page = double(sysconf(_SC_PAGESIZE));
    KJ_IF_MAYBE (pages, field(*memory, 1)) {
      to.gauge("process_virtual_memory_bytes", "Virtual memory of posternd.", *pages * page);
    }
    KJ_IF_MAYBE (pages, field(*memory, 2)) {
      to.gauge("process_resident_memory_bytes", "Resident memory of posternd.", *pages * page);
    }
  }
  KJ_IF_MAYBE (open, openDescriptors()) {
    to.gauge("process_open_fds", "Descriptors that posternd has open.", double(*open));
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    to.gauge("process_max_fds", "Descriptors that posternd may have open.", double(limit.rlim_cur));
  }
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    to.family("process_cpu_seconds_total", MetricType::COUNTER, "Processor time that posternd has taken.");
    to.sample({}, seconds(usage.ru_utime) + seconds(usage.ru_stime));
  }
}

}  // namespace postern::host
