// Each way out of the agent's sandbox is tried in a process of its own, which must not come back from it. Not under a
// sanitizer, whose runtime makes calls of its own.

#include "guest-agent/agent/sandbox.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/memory.h>
#include <kj/thread.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <functional>

#include "tests/support/sanitized.h"
#include "transport/relay/relay-end.h"

using namespace postern::guest;
using postern::test::SANITIZED;

namespace {

constexpr unsigned long THREAD =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
constexpr int CAME_BACK = 42;
constexpr int NOT_ENTERED = 43;

// How a child ends that enters the sandbox and does this.
int endOf(
    const std::function<void()>& attempt, const std::function<void()>& before = []() {}) {
  pid_t pid = fork();
  if (pid == 0) {
    before();
    try {
      enterSandbox();
    } catch (...) {
      _exit(NOT_ENTERED);
    }
    attempt();
    _exit(CAME_BACK);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

bool isKilled(const std::function<void()>& attempt) {
  int status = endOf(attempt);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

}  // namespace

TEST_CASE("what an agent needs goes on working in its sandbox" * doctest::skip(SANITIZED)) {
  int pipes[2];
  REQUIRE(pipe(pipes) == 0);
  int status = endOf([&]() {
    char byte = 'x';
    if (write(pipes[1], &byte, 1) != 1 || read(pipes[0], &byte, 1) != 1) _exit(1);
    auto* memory = static_cast<char*>(malloc(10 << 20));
    memory[5 << 20] = 1;
    free(memory);
    struct timespec now;
    if (clock_gettime(CLOCK_BOOTTIME, &now) != 0) _exit(2);
    _exit(0);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  close(pipes[0]);
  close(pipes[1]);
}

TEST_CASE("threads can be made in the sandbox, are in it, and move the bytes of files of any size" *
          doctest::skip(SANITIZED)) {
  int file = memfd_create("copied", MFD_CLOEXEC);
  REQUIRE(file >= 0);
  int status = endOf([&]() {
    bool good = false;
    kj::heap<kj::Thread>([&]() {
      char bytes[] = "tail";
      struct iovec piece {
        bytes, 4
      };
      struct stat seen {};
      sched_param parameters{};
      good = sched_setscheduler(0, SCHED_BATCH, &parameters) == 0 && ftruncate(file, 8 << 20) == 0 &&
             pwritev(file, &piece, 1, 4 << 20) == 4 && fdatasync(file) == 0 &&
             fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 &&
             posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0 && lseek(file, 0, SEEK_DATA) >= 0 &&
             postern::fileStatus(file, seen) == 0 && seen.st_size == 8 << 20;
    });
    if (!good) _exit(1);
    kj::heap<kj::Thread>([]() { open("/etc/passwd", O_RDONLY); });
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSYS);
  struct stat seen;
  REQUIRE(fstat(file, &seen) == 0);
  CHECK(seen.st_size == 8 << 20);
  close(file);
}

// T60
TEST_CASE("no file can be looked at by its name" * doctest::skip(SANITIZED)) {
  int status = endOf([]() {
    struct stat seen;
    bool refused = stat("/etc/passwd", &seen) != 0 && syscall(SYS_newfstatat, -1, "/etc", &seen, AT_EMPTY_PATH) != 0;
    _exit(refused ? 0 : 1);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(isKilled([]() { access("/etc/passwd", F_OK); }));
}

// T60
TEST_CASE("no file can be opened, made or removed" * doctest::skip(SANITIZED)) {
  CHECK(isKilled([]() { open("/etc/passwd", O_RDONLY); }));
  CHECK(isKilled([]() { syscall(SYS_open, "/etc/passwd", O_RDONLY); }));
  CHECK(isKilled([]() { syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", nullptr, 0); }));
  CHECK(isKilled([]() { open("/tmp/postern-escape", O_CREAT | O_WRONLY, 0600); }));
  CHECK(isKilled([]() { unlink("/tmp/postern-escape"); }));
  CHECK(isKilled([]() { rename("/tmp/postern-escape", "/tmp/postern-escape2"); }));
  CHECK(access("/tmp/postern-escape", F_OK) != 0);
}

// T60
TEST_CASE("no socket can be made or connected" * doctest::skip(SANITIZED)) {
  CHECK(isKilled([]() { socket(AF_INET, SOCK_STREAM, 0); }));
  CHECK(isKilled([]() { socket(AF_UNIX, SOCK_STREAM, 0); }));
  CHECK(isKilled([]() { socket(AF_NETLINK, SOCK_RAW, 0); }));
  CHECK(isKilled([]() {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  }));
  CHECK(isKilled([]() {
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    connect(3, reinterpret_cast<struct sockaddr*>(&address), sizeof(address));
  }));
  CHECK(isKilled([]() { bind(3, nullptr, 0); }));
}

TEST_CASE("connections are taken from sockets that listen already, a thousand and more beside all else" *
          doctest::skip(SANITIZED)) {
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "postern-sandbox-%d", getpid());
  auto size = static_cast<socklen_t>(offsetof(struct sockaddr_un, sun_path) + 1 + static_cast<size_t>(length));
  int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  REQUIRE(bind(listening, reinterpret_cast<struct sockaddr*>(&address), size) == 0);
  REQUIRE(listen(listening, 4096) == 0);
  struct rlimit before;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  // A service manager's usual limit; the sandbox takes what it needs of the hard one.
  struct rlimit usual {
    1024, before.rlim_max
  };
  constexpr int CHANNELS = 1500;
  bool enough = before.rlim_max >= 8192;
  int status = endOf(
      [&]() {
        int taken = 0;
        while (accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC) >= 0) ++taken;
        _exit(errno == EAGAIN && taken == CHANNELS ? 0 : 1);
      },
      [&]() {
        struct rlimit all {
          before.rlim_max, before.rlim_max
        };
        setrlimit(RLIMIT_NOFILE, &all);
        for (int i = 0; i < CHANNELS; ++i) {
          int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
          if (connect(fd, reinterpret_cast<struct sockaddr*>(&address), size) != 0) _exit(NOT_ENTERED);
          close(fd);
        }
        setrlimit(RLIMIT_NOFILE, &usual);
      });
  if (enough) {
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  // Whose they are is not asked for, and no descriptor is made that a program would inherit.
  CHECK(isKilled([&]() { accept4(listening, nullptr, nullptr, SOCK_NONBLOCK); }));
  CHECK(isKilled([&]() { accept(listening, nullptr, nullptr); }));
  CHECK(isKilled([&]() {
    socklen_t room = sizeof(address);
    accept4(listening, reinterpret_cast<struct sockaddr*>(&address), &room, SOCK_NONBLOCK | SOCK_CLOEXEC);
  }));
  close(listening);
}

TEST_CASE("a relay's ends work in the sandbox, to the reset" * doctest::skip(SANITIZED)) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
  int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int status = endOf([&]() {
    kj::UnixEventPort port;
    kj::EventLoop loop(port);
    kj::WaitScope scope(loop);
    auto end = postern::newSocketEnd(port, kj::AutoCloseFd(pair[0]));
    kj::byte bytes[64] = {1};
    if (end->write(kj::arrayPtr(bytes, 1)).bytes != 1) _exit(1);
    if (end->read(bytes).state != postern::RelayEnd::State::OPEN) _exit(2);
    end->finish();
    end->reset();
    postern::newSocketEnd(port, kj::AutoCloseFd(tcp))->reset();
    _exit(0);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  for (int fd : {pair[0], pair[1], tcp}) close(fd);
}

// T60
TEST_CASE("nothing can be started" * doctest::skip(SANITIZED)) {
  CHECK(isKilled([]() { fork(); }));
  CHECK(isKilled([]() { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_clone, THREAD & ~CLONE_THREAD & ~CLONE_SIGHAND, 0, 0, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_clone, THREAD | CLONE_NEWUSER, 0, 0, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_clone, THREAD | CLONE_PTRACE, 0, 0, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_vfork); }));
  // What a filter cannot look into is not there.
  int status = endOf([]() { _exit(syscall(SYS_clone3, nullptr, 0) == -1 && errno == ENOSYS ? 0 : 1); });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(isKilled([]() { execl("/bin/true", "true", nullptr); }));
  CHECK(isKilled([]() { syscall(SYS_execveat, 0, "", nullptr, nullptr, AT_EMPTY_PATH); }));
}

// T60
TEST_CASE("no other process can be harmed or looked into" * doctest::skip(SANITIZED)) {
  CHECK(isKilled([]() { kill(getppid(), SIGKILL); }));
  CHECK(isKilled([]() { kill(-1, 0); }));
  CHECK(isKilled([]() { syscall(SYS_tgkill, 1, 1, SIGKILL); }));
  CHECK(isKilled([]() { ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }));
  CHECK(isKilled([]() { syscall(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0); }));
  CHECK(isKilled([]() { syscall(SYS_pidfd_open, 1, 0); }));
}

TEST_CASE("no code can be brought in and no door opened wider" * doctest::skip(SANITIZED)) {
  CHECK(isKilled([]() { mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }));
  CHECK(isKilled([]() { mprotect(nullptr, 4096, PROT_READ | PROT_EXEC); }));
  CHECK(isKilled([]() { syscall(SYS_memfd_create, "x", 0); }));
  CHECK(isKilled([]() { (void)!setuid(0); }));
  CHECK(isKilled([]() { syscall(SYS_io_uring_setup, 1, nullptr); }));
  CHECK(isKilled([]() { syscall(SYS_bpf, 0, nullptr, 0); }));
  CHECK(isKilled([]() { syscall(SYS_mount, nullptr, nullptr, nullptr, 0, nullptr); }));
  CHECK(isKilled([]() { syscall(SYS_unshare, 0x10000000); }));
  CHECK(isKilled([]() { fcntl(0, F_SETOWN, 1); }));
}
