#include "guest-agent/agent/sandbox.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"

namespace postern::guest {

namespace {

// Of the agent itself; and of each transfer: its opener's socket, what its thread is woken by, and the files and bases
// of entries that are under way.
constexpr rlim_t OWN_DESCRIPTORS = 64;
constexpr rlim_t TRANSFER_DESCRIPTORS = 32;
constexpr rlim_t MAX_DESCRIPTORS = OWN_DESCRIPTORS + transfer::MAX_TRANSFERS * TRANSFER_DESCRIPTORS;

// Besides what is basic (transport/sandbox.h).
constexpr int ALLOWED[] = {
    SCMP_SYS(getsockname),  SCMP_SYS(getpeername), SCMP_SYS(epoll_pwait2),
    SCMP_SYS(clock_getres), SCMP_SYS(time),        SCMP_SYS(nanosleep),
};

void allowBounded(SystemCallFilter& filter) {
  for (int command : {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC}) {
    filter.allow(SCMP_SYS(fcntl), {SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command))});
  }
  filter.allow(SCMP_SYS(setsockopt), {SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET), SCMP_A2(SCMP_CMP_EQ, SO_SNDBUF)});
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

}  // namespace

// T60
SandboxReport enterSandbox() {
  forbidInspection();
  lowerLimit(RLIMIT_NOFILE, MAX_DESCRIPTORS);
  dropCapabilities();
  forbidNewPrivileges();
  SandboxReport report{forbidFiles() == LandlockState::ENFORCED};
  SystemCallFilter filter;
  allowBasics(filter);
  allowThreads(filter);
  allowFileMoving(filter);
  filter.allowAll(ALLOWED);
  allowBounded(filter);
  filter.load();
  return report;
}

}  // namespace postern::guest
