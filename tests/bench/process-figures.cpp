#include "tests/bench/process-figures.h"

#include <kj/debug.h>
#include <kj/string.h>
#include <string.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace postern::bench {

namespace {

// The number of "NAME:  123 kB"; null: no such line, or no such file.
kj::Maybe<uint64_t> numberIn(kj::StringPtr path, kj::StringPtr name) {
  std::ifstream file(path.cStr());
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, name.size(), name.cStr()) == 0 && line[name.size()] == ':') {
      return std::stoull(line.substr(name.size() + 1));
    }
  }
  return nullptr;
}

}  // namespace

double cpuSecondsOf(pid_t pid) {
  clockid_t clock;
  KJ_REQUIRE(clock_getcpuclockid(pid, &clock) == 0, "no such process", pid);
  timespec used;
  KJ_SYSCALL(clock_gettime(clock, &used), pid);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

kj::Maybe<uint64_t> privateBytesOf(pid_t pid) {
  auto path = kj::str("/proc/", pid, "/smaps_rollup");
  KJ_IF_MAYBE (clean, numberIn(path, "Private_Clean")) {
    KJ_IF_MAYBE (dirty, numberIn(path, "Private_Dirty")) return (*clean + *dirty) * 1024;
  }
  return nullptr;
}

uint64_t residentBytesOf(pid_t pid) {
  return KJ_REQUIRE_NONNULL(numberIn(kj::str("/proc/", pid, "/status"), "VmRSS"), "no such process", pid) * 1024;
}

uint64_t waitsOf(pid_t pid) {
  uint64_t all = 0;
  for (auto& thread : std::filesystem::directory_iterator(kj::str("/proc/", pid, "/task").cStr())) {
    auto status = kj::str(thread.path().c_str(), "/status");
    all += numberIn(status, "voluntary_ctxt_switches").orDefault(uint64_t(0));
  }
  return all;
}

pid_t parentOf(pid_t pid) {
  return static_cast<pid_t>(numberIn(kj::str("/proc/", pid, "/status"), "PPid").orDefault(uint64_t(0)));
}

}  // namespace postern::bench
