// Each way out of an opener's sandbox is tried in a process of its own. Not under a sanitizer, whose runtime makes
// calls of its own.

#include "guest-agent/files/opener-sandbox.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <kj/io.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/sanitized.h"
#include "tests/support/temporary-folder.h"

namespace postern::guest {
namespace {

using postern::test::SANITIZED;

enum Status { REFUSED, DID_IT, NOT_ENTERED = 77 };

// A folder with a file in it, and another beside it; and what a process does once it may use nothing but the first.
struct Cage {
  postern::test::TemporaryFolder folder;
  kj::String inside = folder.path("inside"), outside = folder.path("outside");
  kj::AutoCloseFd root;
  SpecialFiles special = SpecialFiles::DENIED;
  uid_t uid = geteuid();

  Cage() {
    KJ_SYSCALL(chmod(folder.path("").cStr(), 0755));
    for (auto& path : {kj::str(inside), kj::str(outside), kj::str(inside, "/deep")}) {
      KJ_SYSCALL(mkdir(path.cStr(), 0777));
      KJ_SYSCALL(chmod(path.cStr(), 0777));
    }
    for (auto& path : {kj::str(inside, "/file"), kj::str(outside, "/file")}) {
      kj::AutoCloseFd file(open(path.cStr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
      KJ_SYSCALL(fchmod(file, 0666));
    }
    root = kj::AutoCloseFd(open(inside.cStr(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }

  int endOf(kj::FunctionParam<bool()> deed) {
    pid_t child = fork();
    KJ_ASSERT(child >= 0);
    if (child == 0) {
      alarm(20);
      if (uid != geteuid() && (setgid(uid) != 0 || setuid(uid) != 0)) _exit(NOT_ENTERED);
      if (kj::runCatchingExceptions([&]() { enterOpenerSandbox(root, special); }) != nullptr) _exit(NOT_ENTERED);
      _exit(deed() ? DID_IT : REFUSED);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) KJ_ASSERT(errno == EINTR);
    return status;
  }
  bool does(kj::FunctionParam<bool()> deed) {
    int status = endOf(kj::mv(deed));
    return WIFEXITED(status) && WEXITSTATUS(status) == DID_IT;
  }
  bool isKilled(kj::FunctionParam<bool()> deed) {
    int status = endOf(kj::mv(deed));
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
  }
  bool isHeld(kj::FunctionParam<bool()> deed) {
    int status = endOf(kj::mv(deed));
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGSYS;
    return WIFEXITED(status) && WEXITSTATUS(status) == REFUSED;
  }
};

#define HOLDS(...) CHECK_MESSAGE(cage.isHeld([&]() -> bool { return __VA_ARGS__; }), #__VA_ARGS__)
#define KILLS(...) CHECK_MESSAGE(cage.isKilled([&]() -> bool { return __VA_ARGS__; }), #__VA_ARGS__)
#define DOES(...) CHECK_MESSAGE(cage.does([&]() -> bool { return __VA_ARGS__; }), #__VA_ARGS__)

bool hasLandlock() {
  return syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) >= 1;
}

TEST_CASE("in its sandbox an opener does beneath its folder what files need" * doctest::skip(SANITIZED)) {
  Cage cage;
  int root = cage.root;
  DOES(openat(root, "file", O_RDWR) >= 0);
  DOES(openat(root, "new", O_RDWR | O_CREAT, 0600) >= 0);
  DOES(openat(root, ".", O_RDWR | O_TMPFILE, 0600) >= 0 || errno == EOPNOTSUPP);
  DOES(mkdirat(root, "made", 0700) == 0);
  DOES(renameat2(root, "new", root, "deep/renamed", RENAME_NOREPLACE) == 0);
  DOES(linkat(root, "file", root, "deep/linked", 0) == 0);
  DOES(symlinkat("anywhere", root, "link") == 0);
  DOES(mkfifoat(root, "fifo", 0600) == 0);
  DOES(unlinkat(root, "link", 0) == 0);
  DOES(unlinkat(root, "made", AT_REMOVEDIR) == 0);
  DOES(fchmodat(root, "file", 0640, 0) == 0);
  DOES([&]() {
    int file = openat(root, "file", O_RDWR);
    timespec times[2] = {{1, 0}, {1, 0}};
    struct stat status;
    return ftruncate(file, 5) == 0 && pwrite(file, "x", 1, 2) == 1 && fsync(file) == 0 && futimens(file, times) == 0 &&
           fstat(file, &status) == 0 && status.st_size == 5 && fchmod(file, 0600) == 0 &&
           flistxattr(file, nullptr, 0) >= 0;
  }());
}

// T73
TEST_CASE("in its sandbox an opener neither reads nor changes what is outside its folder" * doctest::skip(SANITIZED)) {
  if (!hasLandlock()) return;
  Cage cage;
  int root = cage.root;
  kj::AutoCloseFd elsewhere(open(cage.outside.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  auto file = kj::str(cage.outside, "/file"), other = kj::str(cage.outside, "/other");
  HOLDS(open(file.cStr(), O_RDONLY) >= 0);
  HOLDS(open(file.cStr(), O_WRONLY | O_TRUNC) >= 0);
  HOLDS(openat(root, "../outside/file", O_RDONLY) >= 0);
  HOLDS(openat(elsewhere, "file", O_RDONLY) >= 0);
  HOLDS(open("/etc/passwd", O_RDONLY) >= 0);
  HOLDS(open("/proc/self/mem", O_RDWR) >= 0);
  HOLDS(open("/dev/null", O_RDWR) >= 0);
  HOLDS(open(other.cStr(), O_CREAT | O_WRONLY, 0600) >= 0);
  HOLDS(truncate(file.cStr(), 0) == 0);
  HOLDS(mkdirat(elsewhere, "made", 0700) == 0);
  HOLDS(symlinkat("x", elsewhere, "link") == 0);
  HOLDS(unlinkat(elsewhere, "file", 0) == 0);
  HOLDS(renameat(elsewhere, "file", root, "taken") == 0);
  HOLDS(renameat(root, "file", elsewhere, "given") == 0);
  HOLDS(linkat(elsewhere, "file", root, "taken", 0) == 0);
  HOLDS(linkat(root, "file", elsewhere, "given", 0) == 0);
  // A link beneath the folder leads nowhere else.
  HOLDS(symlinkat(file.cStr(), root, "trap") == 0 && openat(root, "trap", O_RDONLY) >= 0);
  HOLDS(chdir("/") == 0);
  HOLDS(chroot(".") == 0);
}

// T73
TEST_CASE("in its sandbox an opener starts nothing, makes no socket and touches no other process" *
          doctest::skip(SANITIZED)) {
  Cage cage;
  const pid_t parent = getpid();
  KILLS(fork() >= 0);
  KILLS(syscall(SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, nullptr) >= 0);
  KILLS(syscall(SYS_clone3, nullptr, size_t(0)) >= 0);
  KILLS(execl("/bin/true", "true", nullptr) == 0);
  KILLS(syscall(SYS_execveat, 0, "", nullptr, nullptr, AT_EMPTY_PATH) == 0);
  KILLS(kill(parent, SIGCONT) == 0);
  KILLS(syscall(SYS_tgkill, parent, parent, SIGCONT) == 0);
  KILLS(syscall(SYS_pidfd_open, parent, 0) >= 0);
  KILLS(ptrace(PTRACE_ATTACH, parent, nullptr, nullptr) == 0);
  KILLS(syscall(SYS_process_vm_readv, parent, nullptr, 0, nullptr, 0, 0) >= 0);
  HOLDS(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
  HOLDS(socket(AF_INET, SOCK_STREAM, 0) >= 0);
  KILLS(bind(3, nullptr, 0) == 0);
  KILLS(mount("none", "/", "tmpfs", 0, nullptr) == 0);
  KILLS(unshare(CLONE_NEWUSER) == 0);
  KILLS(syscall(SYS_setns, 0, 0) == 0);
  KILLS(setuid(0) == 0);
  KILLS(syscall(SYS_bpf, 0, nullptr, 0) >= 0);
  KILLS(syscall(SYS_io_uring_setup, 1, nullptr) >= 0);
  KILLS(syscall(SYS_ioctl, 0, 0x5412, "x") == 0);  // TIOCSTI: types into the terminal
  KILLS(fcntl(0, F_SETOWN, parent) == 0);
  KILLS(syscall(SYS_prlimit64, parent, 0, nullptr, nullptr) == 0);
  KILLS(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", nullptr, nullptr, 0) == 0);
  KILLS(syscall(SYS_open_by_handle_at, 0, nullptr, 0) >= 0);
  KILLS(mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

// T73
TEST_CASE("a root's opener is root among files and nowhere else; devices are made if the policy says special" *
          doctest::skip(SANITIZED)) {
  if (geteuid() != 0) return;
  Cage cage;
  auto has = [](unsigned capability) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    // capget() is not for who is in the sandbox; what there is was settled before.
    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> capability & 1) != 0;
  };
  KILLS(has(CAP_CHOWN));
  DOES(fchownat(cage.root, "file", 65534, 65534, AT_SYMLINK_NOFOLLOW) == 0);
  HOLDS(mknodat(cage.root, "device", S_IFCHR | 0600, makedev(1, 3)) == 0);
  HOLDS(setxattr(kj::str(cage.inside, "/file").cStr(), "trusted.x", "y", 1, 0) == 0);  // CAP_SYS_ADMIN
  cage.special = SpecialFiles::ALLOWED;
  DOES(mknodat(cage.root, "device", S_IFCHR | 0600, makedev(1, 3)) == 0);
  cage.uid = 65534;
  HOLDS(fchownat(cage.root, "file", 0, 0, AT_SYMLINK_NOFOLLOW) == 0);
  HOLDS(mknodat(cage.root, "other-device", S_IFCHR | 0600, makedev(1, 3)) == 0);
}

}  // namespace
}  // namespace postern::guest
