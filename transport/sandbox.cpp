#include "transport/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transport/receive.h"

namespace postern {

namespace {

constexpr int BASICS[] = {
    SCMP_SYS(read),        SCMP_SYS(readv),          SCMP_SYS(pread64),      SCMP_SYS(write),
    SCMP_SYS(writev),      SCMP_SYS(pwrite64),       SCMP_SYS(close),        SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),       SCMP_SYS(recvmsg),        SCMP_SYS(recvfrom),     SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),      SCMP_SYS(shutdown),       SCMP_SYS(getsockopt),   SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),   SCMP_SYS(epoll_wait),     SCMP_SYS(epoll_pwait),  SCMP_SYS(poll),
    SCMP_SYS(ppoll),       SCMP_SYS(eventfd2),       SCMP_SYS(signalfd4),    SCMP_SYS(brk),
    SCMP_SYS(munmap),      SCMP_SYS(mremap),         SCMP_SYS(madvise),      SCMP_SYS(mlock),
    SCMP_SYS(munlock),     SCMP_SYS(clock_gettime),  SCMP_SYS(gettimeofday), SCMP_SYS(clock_nanosleep),
    SCMP_SYS(getrandom),   SCMP_SYS(getpid),         SCMP_SYS(gettid),       SCMP_SYS(getuid),
    SCMP_SYS(geteuid),     SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack), SCMP_SYS(futex),          SCMP_SYS(sched_yield),  SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),        SCMP_SYS(exit_group),
};

constexpr int FILE_CALLS[] = {
    SCMP_SYS(preadv),    SCMP_SYS(pwritev),   SCMP_SYS(preadv2),         SCMP_SYS(pwritev2),
    SCMP_SYS(lseek),     SCMP_SYS(fstat),     SCMP_SYS(ftruncate),       SCMP_SYS(fallocate),
    SCMP_SYS(fadvise64), SCMP_SYS(readahead), SCMP_SYS(copy_file_range), SCMP_SYS(sync_file_range),
};

// What the kernel knows to restrict, by the versions of Landlock; bits of versions above are not asked for.
uint64_t landlockRights(long version) {
  uint64_t rights = (uint64_t(1) << 13) - 1;      // what the first version knows
  if (version >= 2) rights |= uint64_t(1) << 13;  // refer: links and renames between folders
  if (version >= 3) rights |= uint64_t(1) << 14;  // truncate
  if (version >= 5) rights |= uint64_t(1) << 15;  // ioctl on devices
  return rights;
}

// With a folder: beneath it all is allowed but executing.
LandlockState enterLandlock(kj::Maybe<int> folder) {
  auto version = landlockVersion();
  if (version < 1) return LandlockState::NOT_IN_KERNEL;
  struct landlock_ruleset_attr attributes {};
  attributes.handled_access_fs = landlockRights(version);
  int fd;
  KJ_SYSCALL(fd = static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0)));
  kj::AutoCloseFd ruleset(fd);
  KJ_IF_MAYBE (beneath, folder) {
    struct landlock_path_beneath_attr rule {};
    rule.allowed_access = landlockRights(version) & ~uint64_t(LANDLOCK_ACCESS_FS_EXECUTE);
    rule.parent_fd = *beneath;
    KJ_SYSCALL(syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
  }
  KJ_SYSCALL(syscall(SYS_landlock_restrict_self, fd, 0));
  return LandlockState::ENFORCED;
}

}  // namespace

SystemCallFilter::SystemCallFilter() : context(seccomp_init(SCMP_ACT_KILL_PROCESS)) {
  KJ_REQUIRE(context != nullptr, "no memory for the system-call filter");
}
SystemCallFilter::~SystemCallFilter() {
  seccomp_release(context);
}

void SystemCallFilter::allow(int call, std::initializer_list<scmp_arg_cmp> conditions) {
  int result = seccomp_rule_add_array(context, SCMP_ACT_ALLOW, call, static_cast<unsigned>(conditions.size()),
                                      conditions.begin());
  KJ_REQUIRE(result == 0, "system-call filter", call, result);
}

void SystemCallFilter::allowAll(kj::ArrayPtr<const int> calls) {
  for (int call : calls) allow(call);
}

void SystemCallFilter::refuse(int call, int error) {
  int result = seccomp_rule_add_array(context, SCMP_ACT_ERRNO(static_cast<uint16_t>(error)), call, 0, nullptr);
  KJ_REQUIRE(result == 0, "system-call filter", call, result);
}

void SystemCallFilter::load() {
  int result = seccomp_load(context);
  KJ_REQUIRE(result == 0, "the kernel refused the system-call filter", result);
}

void allowBasics(SystemCallFilter& filter) {
  filter.allowAll(BASICS);
  filter.allow(SCMP_SYS(mmap), {argumentMasked(2, PROT_EXEC, 0)});
  filter.allow(SCMP_SYS(mprotect), {argumentMasked(2, PROT_EXEC, 0)});
  filter.allow(SCMP_SYS(ioctl), {argumentIs(1, FIONBIO)});
  filter.allow(SCMP_SYS(tgkill), {argumentIs(0, static_cast<scmp_datum_t>(getpid()))});
}

void allowThreads(SystemCallFilter& filter) {
  constexpr scmp_datum_t SHARED = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  // What a thread's start may ask for besides: where its storage and its number are.
  constexpr scmp_datum_t FREE = CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;
  filter.allow(SCMP_SYS(clone), {argumentMasked(0, ~FREE, SHARED)});
  filter.refuse(SCMP_SYS(clone3), ENOSYS);
  filter.allow(SCMP_SYS(set_robust_list));
  filter.allow(SCMP_SYS(rseq));
  // How many arenas malloc() makes; the thread's name.
  filter.allow(SCMP_SYS(sched_getaffinity));
  filter.allow(SCMP_SYS(prctl), {argumentIs(0, PR_SET_NAME)});
  // A thread may stand back behind the others, and nothing else.
  filter.allow(SCMP_SYS(sched_setscheduler), {argumentIs(0, 0), argumentIs(1, SCHED_BATCH)});
}

void allowRelays(SystemCallFilter& filter) {
  for (int option : {SO_LINGER, PASS_RIGHTS}) {
    filter.allow(SCMP_SYS(setsockopt), {argumentIs(1, SOL_SOCKET), argumentIs(2, static_cast<scmp_datum_t>(option))});
  }
}

void allowFileCalls(SystemCallFilter& filter) {
  filter.allowAll(FILE_CALLS);
}

void allowFileMoving(SystemCallFilter& filter) {
  allowFileCalls(filter);
  filter.refuse(SCMP_SYS(newfstatat), EACCES);
}

int fileStatus(int fd, struct stat& status) {
  return static_cast<int>(syscall(SYS_fstat, fd, &status));
}

void raiseLimit(__rlimit_resource resource, rlim_t wanted) {
  struct rlimit limit;
  KJ_SYSCALL(getrlimit(resource, &limit));
  limit.rlim_cur = kj::max(limit.rlim_cur, kj::min(limit.rlim_max, wanted));
  KJ_SYSCALL(setrlimit(resource, &limit));
}

void lowerLimit(__rlimit_resource resource, rlim_t most) {
  struct rlimit limit;
  KJ_SYSCALL(getrlimit(resource, &limit));
  limit.rlim_cur = kj::min(limit.rlim_cur, most);
  limit.rlim_max = kj::min(limit.rlim_max, most);
  KJ_SYSCALL(setrlimit(resource, &limit));
}

void forbidInspection() {
  lowerLimit(RLIMIT_CORE, 0);
  KJ_SYSCALL(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

void forbidNewPrivileges() {
  KJ_SYSCALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

void keepCapabilities(uint64_t bits) {
  for (unsigned capability = 0; capability < 64; ++capability) {
    // Needs CAP_SETPCAP; without it there is nothing to be had either. Beyond the last one it fails.
    if ((bits >> capability & 1) == 0) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  struct __user_cap_header_struct header {
    _LINUX_CAPABILITY_VERSION_3, 0
  };
  struct __user_cap_data_struct data[2]{};
  KJ_SYSCALL(syscall(SYS_capget, &header, data));
  for (unsigned half = 0; half < 2; ++half) {
    data[half].permitted &= static_cast<uint32_t>(bits >> 32 * half);
    data[half].effective = data[half].permitted;
    data[half].inheritable = 0;
  }
  KJ_SYSCALL(syscall(SYS_capset, &header, data));
}

long landlockVersion() {
  return syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

LandlockState forbidFiles() {
  return enterLandlock(nullptr);
}

LandlockState forbidFilesOutside(int folder) {
  return enterLandlock(folder);
}

}  // namespace postern
