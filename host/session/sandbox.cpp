#include "host/session/sandbox.h"

#include <errno.h>
#include <kj/debug.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace postern::host {

namespace {

constexpr rlim_t MAX_DESCRIPTORS = 1024;
constexpr rlim_t MAX_DATA_BYTES = rlim_t(512) << 20;

// What KJ's loop, Cap'n Proto, libsodium, malloc and the C library use once everything is open.
constexpr int ALLOWED[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(signalfd4),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(mlock),
    SCMP_SYS(munlock),
    SCMP_SYS(futex),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),
    SCMP_SYS(sched_yield),
};

// Asked for in passing by libraries that do without: an error in place of the end.
constexpr int REFUSED[] = {
    SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(fstat), SCMP_SYS(readlink), SCMP_SYS(access), SCMP_SYS(uname),
};

class Filter {
 public:
  Filter() : context(seccomp_init(SCMP_ACT_KILL_PROCESS)) {
    KJ_REQUIRE(context != nullptr, "no memory for the system-call filter");
  }
  ~Filter() { seccomp_release(context); }
  KJ_DISALLOW_COPY(Filter);

  template <typename... Conditions>
  void add(uint32_t action, int call, Conditions... conditions) {
    int result = seccomp_rule_add(context, action, call, sizeof...(conditions), conditions...);
    KJ_REQUIRE(result == 0, "system-call filter", call, result);
  }
  void load() {
    int result = seccomp_load(context);
    KJ_REQUIRE(result == 0, "the kernel refused the system-call filter", result);
  }

 private:
  scmp_filter_ctx context;
};

void limit(__rlimit_resource_t resource, rlim_t most) {
  struct rlimit now;
  KJ_SYSCALL(getrlimit(resource, &now));
  most = kj::min(most, now.rlim_max);
  struct rlimit value {
    most, most
  };
  KJ_SYSCALL(setrlimit(resource, &value));
}

// No path at all.
LandlockState forbidFiles() {
  auto version = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return LandlockState::NOT_IN_KERNEL;
  struct landlock_ruleset_attr rights {};
  rights.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;  // all that version 1 knows
  int ruleset;
  KJ_SYSCALL(ruleset = static_cast<int>(syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0)));
  KJ_DEFER(close(ruleset));
  KJ_SYSCALL(syscall(SYS_landlock_restrict_self, ruleset, 0));
  return LandlockState::ENFORCED;
}

void filterSystemCalls() {
  Filter filter;
  for (int call : ALLOWED) filter.add(SCMP_ACT_ALLOW, call);
  for (int call : REFUSED) filter.add(SCMP_ACT_ERRNO(EACCES), call);
  // Memory, but none that can be executed.
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // FIONBIO and FIOCLEX, which KJ uses on descriptors that it takes.
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, 0x5421));
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, 0x5451));
  // abort() of this very process.
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(getpid())));
  filter.load();
}

}  // namespace

// T51
LandlockState enterSessionSandbox() {
  KJ_SYSCALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  KJ_SYSCALL(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, MAX_DESCRIPTORS);
  limit(RLIMIT_DATA, MAX_DATA_BYTES);
  auto landlock = forbidFiles();
  filterSystemCalls();
  return landlock;
}

}  // namespace postern::host
