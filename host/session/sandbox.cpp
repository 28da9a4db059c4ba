#include "host/session/sandbox.h"

#include <errno.h>
#include <kj/debug.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "host/session/channels/channel-book.h"

namespace postern::host {

namespace {

// Of each channel its socket, its mirror's, and one of an earlier channel that has still to be closed elsewhere; and
// what else there is.
constexpr rlim_t MAX_DESCRIPTORS = 3 * MAX_VM_CHANNELS + 1024;
constexpr rlim_t MAX_DATA_BYTES = rlim_t(512) << 20;

// Besides what is basic (transport/sandbox.h).
constexpr int ALLOWED[] = {
    SCMP_SYS(accept4),         SCMP_SYS(setsockopt), SCMP_SYS(fcntl),   SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime), SCMP_SYS(getgid),     SCMP_SYS(getegid),
};

// Asked for in passing by libraries that do without: an error in place of the end.
constexpr int REFUSED[] = {
    SCMP_SYS(openat),
    SCMP_SYS(readlink),
    SCMP_SYS(access),
    SCMP_SYS(uname),
};

// Services start with few and may have more.
void limitDescriptors() {
  struct rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_max = kj::min(limit.rlim_max, MAX_DESCRIPTORS);
  limit.rlim_cur = limit.rlim_max;
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
}

void filterSystemCalls() {
  SystemCallFilter filter;
  allowBasics(filter);
  // Movers: a thread a transfer, which reads and writes what callers' openers pass.
  allowThreads(filter);
  allowFileMoving(filter);
  allowRelays(filter);
  filter.allowAll(ALLOWED);
  for (int call : REFUSED) filter.refuse(call, EACCES);
  // FIOCLEX, which KJ uses on descriptors that it takes.
  filter.allow(SCMP_SYS(ioctl), {argumentIs(1, FIOCLEX)});
  filter.load();
}

}  // namespace

// T51
LandlockState enterSessionSandbox() {
  forbidNewPrivileges();
  forbidInspection();
  limitDescriptors();
  lowerLimit(RLIMIT_DATA, MAX_DATA_BYTES);
  auto landlock = forbidFiles();
  filterSystemCalls();
  return landlock;
}

}  // namespace postern::host
