#include "guest-agent/agent/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace postern::guest {

namespace {

constexpr rlim_t MAX_DESCRIPTORS = 64;
constexpr rlim_t MAX_FILE_BYTES = rlim_t(1) << 20;  // the state file has 8 KiB

// Calls with any arguments: none of them names a file, an address or another process.
constexpr int ALLOWED[] = {
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pwrite64),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(lseek),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),
    SCMP_SYS(ftruncate),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(signalfd4),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(mlock),
    SCMP_SYS(munlock),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

class Filter {
 public:
  Filter() : context(seccomp_init(SCMP_ACT_KILL_PROCESS)) { KJ_REQUIRE(context != nullptr, "no seccomp filter"); }
  ~Filter() { seccomp_release(context); }
  KJ_DISALLOW_COPY(Filter);

  template <typename... Conditions>
  void allow(int call, Conditions... conditions) {
    int error = seccomp_rule_add(context, SCMP_ACT_ALLOW, call, sizeof...(conditions), conditions...);
    KJ_REQUIRE(error == 0, "seccomp rule", call, error);
  }
  void load() {
    int error = seccomp_load(context);
    KJ_REQUIRE(error == 0, "the kernel takes no seccomp filter", error);
  }

 private:
  scmp_filter_ctx context;
};

void allowBounded(Filter& filter) {
  // Memory, but never executable.
  filter.allow(SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  filter.allow(SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  for (int command : {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC}) {
    filter.allow(SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command)));
  }
  filter.allow(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO));
  filter.allow(SCMP_SYS(setsockopt), SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET), SCMP_A2(SCMP_CMP_EQ, SO_SNDBUF));
  // abort() ends this process and no other.
  filter.allow(SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(getpid())));
}

// Never above what it was.
void lowerLimit(__rlimit_resource resource, rlim_t value) {
  struct rlimit limit;
  KJ_SYSCALL(getrlimit(resource, &limit));
  limit.rlim_cur = kj::min(limit.rlim_cur, value);
  limit.rlim_max = kj::min(limit.rlim_max, value);
  KJ_SYSCALL(setrlimit(resource, &limit));
}

void dropCapabilities() {
  for (unsigned long capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // needs CAP_SETPCAP; without it there is nothing to be had either
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  struct __user_cap_header_struct header {
    _LINUX_CAPABILITY_VERSION_3, 0
  };
  struct __user_cap_data_struct none[2]{};
  KJ_SYSCALL(syscall(SYS_capset, &header, none));
}

// An empty set of rules over everything that the kernel can restrict.
bool enterLandlock() {
  auto version = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return false;
  struct landlock_ruleset_attr attributes {};
  attributes.handled_access_fs = (uint64_t(1) << 13) - 1;               // what the first version knows
  if (version >= 2) attributes.handled_access_fs |= uint64_t(1) << 13;  // refer
  if (version >= 3) attributes.handled_access_fs |= uint64_t(1) << 14;  // truncate
  int fd = static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0));
  KJ_REQUIRE(fd >= 0, "landlock_create_ruleset", errno);
  kj::AutoCloseFd ruleset(fd);
  KJ_SYSCALL(syscall(SYS_landlock_restrict_self, fd, 0));
  return true;
}

}  // namespace

// T60
SandboxReport enterSandbox() {
  lowerLimit(RLIMIT_CORE, 0);
  lowerLimit(RLIMIT_NOFILE, MAX_DESCRIPTORS);
  lowerLimit(RLIMIT_FSIZE, MAX_FILE_BYTES);
  KJ_SYSCALL(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  dropCapabilities();
  KJ_SYSCALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  SandboxReport report{enterLandlock()};
  Filter filter;
  for (int call : ALLOWED) filter.allow(call);
  allowBounded(filter);
  filter.load();
  return report;
}

}  // namespace postern::guest
