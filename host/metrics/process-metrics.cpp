#include "host/metrics/process-metrics.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "host/files/files.h"

namespace postern::host {

namespace {

constexpr size_t MAX_STAT_BYTES = 4096;
// /proc/stat has a line for each processor before the one that is looked for.
constexpr size_t MAX_MACHINE_STAT_BYTES = 1 << 20;

// The fields of a line of numbers from `first` on, counted from 1.
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

// Seconds since 1970 at which the machine booted.
kj::Maybe<double> bootTime() {
  KJ_IF_MAYBE (text, read("/proc/stat", MAX_MACHINE_STAT_BYTES)) {
    constexpr auto KEY = "\nbtime "_kj;
    if (auto* at = strstr(text->cStr(), KEY.cStr())) return strtod(at + KEY.size(), nullptr);
  }
  return nullptr;
}

// proc(5): the 22nd field of /proc/PID/stat, in ticks since the boot. Behind the name, which may hold anything.
kj::Maybe<double> startTime() {
  KJ_IF_MAYBE (text, read("/proc/self/stat", MAX_STAT_BYTES)) {
    KJ_IF_MAYBE (end, text->findLast(')')) {
      KJ_IF_MAYBE (ticks, field(text->slice(*end + 2), 20)) {
        KJ_IF_MAYBE (boot, bootTime()) return *boot + *ticks / double(sysconf(_SC_CLK_TCK));
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
  static const kj::Maybe<double> STARTED = startTime();  // /proc/stat takes the kernel a while, and this stays as it is
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
