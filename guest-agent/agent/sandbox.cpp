#include "guest-agent/agent/sandbox.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/socket.h>

#include "guest-agent/settings/services-settings.h"
#include "protocol/limits.h"
#include "protocol/transfer/limits.h"

namespace postern::guest {

namespace {

// Of the agent itself; and of each transfer: its opener's socket, what its thread is woken by, and the files and bases
// of entries that are under way.
constexpr rlim_t OWN_DESCRIPTORS = 64;
constexpr rlim_t TRANSFER_DESCRIPTORS = 32;
// Of channels: a session's, each with a socket, and the sockets where consumers listen.
constexpr rlim_t CHANNEL_DESCRIPTORS = limits::MAX_BULK_CHANNELS + MAX_CONSUMERS;
constexpr rlim_t MAX_DESCRIPTORS =
    OWN_DESCRIPTORS + transfer::MAX_TRANSFERS * TRANSFER_DESCRIPTORS + CHANNEL_DESCRIPTORS;

// Besides what is basic (transport/sandbox.h).
constexpr int ALLOWED[] = {
    SCMP_SYS(getsockname),  SCMP_SYS(getpeername), SCMP_SYS(epoll_pwait2),
    SCMP_SYS(clock_getres), SCMP_SYS(time),        SCMP_SYS(nanosleep),
};

void allowBounded(SystemCallFilter& filter) {
  // Nobody's address is asked for.
  filter.allow(SCMP_SYS(accept4), {argumentIs(1, 0), argumentIs(2, 0), argumentIs(3, SOCK_CLOEXEC | SOCK_NONBLOCK)});
  for (int command : {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC}) {
    filter.allow(SCMP_SYS(fcntl), {argumentIs(1, static_cast<scmp_datum_t>(command))});
  }
  filter.allow(SCMP_SYS(setsockopt), {argumentIs(1, SOL_SOCKET), argumentIs(2, SO_SNDBUF)});
}

}  // namespace

// T60
SandboxReport enterSandbox() {
  forbidInspection();
  raiseLimit(RLIMIT_NOFILE, MAX_DESCRIPTORS);
  lowerLimit(RLIMIT_NOFILE, MAX_DESCRIPTORS);
  keepCapabilities(0);
  forbidNewPrivileges();
  SandboxReport report{forbidFiles() == LandlockState::ENFORCED};
  SystemCallFilter filter;
  allowBasics(filter);
  allowThreads(filter);
  allowFileMoving(filter);
  allowRelays(filter);
  filter.allowAll(ALLOWED);
  allowBounded(filter);
  filter.load();
  return report;
}

}  // namespace postern::guest
