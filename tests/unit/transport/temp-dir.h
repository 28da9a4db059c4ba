#pragma once
// A folder of one test, 0700, removed with all it holds at the end. And the count of our descriptors.

#include <kj/debug.h>
#include <kj/string.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>

namespace postern {

class TempDir {
 public:
  TempDir() : folder(kj::str("/tmp/postern-test-XXXXXX")) {
    KJ_REQUIRE(mkdtemp(folder.begin()) != nullptr, "no temporary folder", folder);
  }
  ~TempDir() noexcept(false) { std::filesystem::remove_all(folder.cStr()); }
  KJ_DISALLOW_COPY(TempDir);

  kj::StringPtr path() const { return folder; }
  kj::String file(kj::StringPtr name) const { return kj::str(folder, "/", name); }

 private:
  kj::String folder;
};

// How many descriptors this process has open (and one for looking).
inline size_t openDescriptors() {
  std::filesystem::directory_iterator begin("/proc/self/fd");
  return static_cast<size_t>(std::distance(std::filesystem::begin(begin), std::filesystem::end(begin)));
}

// While it lives, this process gets no further descriptor. As little as possible should run meanwhile: UBSan's check of
// a type that it has not seen before needs a pipe, and reports an error without one.
class NoDescriptors {
 public:
  NoDescriptors() {
    KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &before));
    int lowestFree;
    KJ_SYSCALL(lowestFree = dup(STDIN_FILENO));
    close(lowestFree);
    // Not 0: poll() then refuses to look at any.
    rlimit none = {rlim_t(lowestFree), before.rlim_max};
    KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &none));
  }
  ~NoDescriptors() noexcept(false) { KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &before)); }
  KJ_DISALLOW_COPY(NoDescriptors);

 private:
  rlimit before;
};

}  // namespace postern
