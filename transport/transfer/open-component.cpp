#include "transport/transfer/open-component.h"

#include <errno.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

namespace {

// Whether the kernel was found to lack it: the one thing here that the process remembers.
std::atomic<bool> openat2Lacks{false};

int openBeneath(int folder, const char* name, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<uint64_t>(static_cast<unsigned>(flags));
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(syscall(SYS_openat2, folder, name, &how, sizeof(how)));
}

}  // namespace

// T81
kj::AutoCloseFd openComponent(int folder, kj::StringPtr name, int flags, mode_t mode) {
  flags |= O_CLOEXEC | O_NOFOLLOW;
  if (!openat2Lacks.load(std::memory_order_relaxed)) {
    int fd = openBeneath(folder, name.cStr(), flags, mode);
    // EPERM: perhaps of a filter older than the call. The other one says the same if it is not.
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return kj::AutoCloseFd(fd);
    if (errno == ENOSYS) openat2Lacks.store(true, std::memory_order_relaxed);
  }
  return kj::AutoCloseFd(openat(folder, name.cStr(), flags, mode));
}

bool kernelHasOpenat2() {
  kj::AutoCloseFd here(openBeneath(AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  return here != nullptr || (errno != ENOSYS && errno != EPERM);
}

kj::AutoCloseFd openDirectory(int folder, kj::StringPtr name) {
  auto fd = openComponent(folder, name, O_RDONLY | O_DIRECTORY);
  if (fd == nullptr && errno == EACCES) return openComponent(folder, name, O_PATH | O_DIRECTORY);
  return fd;
}

kj::Maybe<kj::String> readLink(int folder, kj::StringPtr name) {
  char target[MAX_PATH_BYTES + 1];
  ssize_t n = readlinkat(folder, name.cStr(), target, sizeof(target));
  if (n < 0) return nullptr;
  return kj::heapString(target, static_cast<size_t>(n));
}

kj::String descriptorPath(int descriptor) {
  return kj::str("/proc/self/fd/", descriptor);
}

void allowManyDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace postern::transfer
