#include "guest-agent/files/opener-sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/socket.h>

namespace postern::guest {

namespace {

constexpr uint64_t bit(unsigned capability) {
  return uint64_t(1) << capability;
}
constexpr uint64_t FILE_CAPABILITIES =
    bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH) | bit(CAP_CHOWN) | bit(CAP_FOWNER) | bit(CAP_FSETID);
// Devices, and the capabilities of programs.
constexpr uint64_t SPECIAL_CAPABILITIES = bit(CAP_MKNOD) | bit(CAP_SETFCAP);

// Besides what is basic and what moves files (transport/sandbox.h): names in folders, and what describes a file.
constexpr int ALLOWED[] = {
    SCMP_SYS(open),       SCMP_SYS(openat),      SCMP_SYS(openat2),      SCMP_SYS(getdents64),   SCMP_SYS(stat),
    SCMP_SYS(lstat),      SCMP_SYS(newfstatat),  SCMP_SYS(statx),        SCMP_SYS(fstatfs),      SCMP_SYS(statfs),
    SCMP_SYS(access),     SCMP_SYS(faccessat),   SCMP_SYS(faccessat2),   SCMP_SYS(readlink),     SCMP_SYS(readlinkat),
    SCMP_SYS(mkdir),      SCMP_SYS(mkdirat),     SCMP_SYS(rmdir),        SCMP_SYS(unlink),       SCMP_SYS(unlinkat),
    SCMP_SYS(rename),     SCMP_SYS(renameat),    SCMP_SYS(renameat2),    SCMP_SYS(link),         SCMP_SYS(linkat),
    SCMP_SYS(symlink),    SCMP_SYS(symlinkat),   SCMP_SYS(mknod),        SCMP_SYS(mknodat),      SCMP_SYS(chmod),
    SCMP_SYS(fchmod),     SCMP_SYS(fchmodat),    SCMP_SYS(chown),        SCMP_SYS(lchown),       SCMP_SYS(fchown),
    SCMP_SYS(fchownat),   SCMP_SYS(utimensat),   SCMP_SYS(setxattr),     SCMP_SYS(lsetxattr),    SCMP_SYS(fsetxattr),
    SCMP_SYS(getxattr),   SCMP_SYS(lgetxattr),   SCMP_SYS(fgetxattr),    SCMP_SYS(listxattr),    SCMP_SYS(llistxattr),
    SCMP_SYS(flistxattr), SCMP_SYS(removexattr), SCMP_SYS(lremovexattr), SCMP_SYS(fremovexattr), SCMP_SYS(flock),
    SCMP_SYS(syncfs),     SCMP_SYS(umask),       SCMP_SYS(dup),          SCMP_SYS(getgid),       SCMP_SYS(getegid),
    SCMP_SYS(getgroups),  SCMP_SYS(nanosleep),   SCMP_SYS(time),         SCMP_SYS(clock_getres),
};

// Newer than the headers; a C library that tries it does without.
constexpr int FCHMODAT2 = 452;
// What the C library may ask for in passing when it looks for names of users: it goes without.
constexpr int REFUSED[] = {
    SCMP_SYS(socket), SCMP_SYS(connect), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getcwd),
};

void allowBounded(SystemCallFilter& filter) {
  for (int command : {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC}) {
    filter.allow(SCMP_SYS(fcntl), {argumentIs(1, static_cast<scmp_datum_t>(command))});
  }
  filter.refuse(FCHMODAT2, ENOSYS);
  filter.allow(SCMP_SYS(setsockopt), {argumentIs(1, SOL_SOCKET), argumentIs(2, SO_SNDBUF)});
  // Its own limits, which it may use up and not exceed.
  filter.allow(SCMP_SYS(prlimit64), {argumentIs(0, 0)});
}

}  // namespace

// T73
LandlockState enterOpenerSandbox(int folder, SpecialFiles special) {
  forbidInspection();
  keepCapabilities(FILE_CAPABILITIES | (special == SpecialFiles::ALLOWED ? SPECIAL_CAPABILITIES : 0));
  forbidNewPrivileges();
  auto landlock = forbidFilesOutside(folder);
  SystemCallFilter filter;
  allowBasics(filter);
  allowFileCalls(filter);
  filter.allowAll(ALLOWED);
  for (int call : REFUSED) filter.refuse(call, EACCES);
  allowBounded(filter);
  filter.load();
  return landlock;
}

}  // namespace postern::guest
