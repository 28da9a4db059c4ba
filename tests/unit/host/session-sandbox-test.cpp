#include "host/session/sandbox.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <thread>

#include "host/local-rpc/passed-sockets.h"
#include "host/session/mirror.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary-folder.h"
#include "tests/unit/host/tcp-pair.h"
#include "transport/relay/relay-end.h"
#include "transport/sandbox.h"

namespace postern::host {
namespace {

constexpr int ESCAPED = 77;
constexpr int REFUSED = 78;

// How a child ended that entered the sandbox and then did this. `deed` returns whether it succeeded.
int inSandbox(kj::FunctionParam<bool()> deed) {
  fflush(nullptr);
  pid_t child = fork();
  KJ_ASSERT(child >= 0);
  if (child == 0) {
    alarm(20);
    enterSessionSandbox();
    _exit(deed() ? ESCAPED : REFUSED);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) KJ_ASSERT(errno == EINTR);
  return status;
}

// Ended by the kernel at once, or refused with an error.
bool isHeld(int status) {
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGSYS;
  return WIFEXITED(status) && WEXITSTATUS(status) == REFUSED;
}

template <typename... Arguments>
bool calls(long number, Arguments... arguments) {
  return syscall(number, arguments...) >= 0;
}

#define HOLDS(...) CHECK_MESSAGE(isHeld(inSandbox([&]() -> bool { return __VA_ARGS__; })), #__VA_ARGS__)

// T51
TEST_CASE("postern-session in its sandbox opens, makes, changes and removes no file") {
  if (test::SANITIZED) return;
  test::TemporaryFolder folder;
  auto path = folder.path("file");
  int file = open(path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(file >= 0);
  int directory = open(folder.path("").cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(directory >= 0);
  auto other = folder.path("other");
  HOLDS(open("/etc/passwd", O_RDONLY) >= 0);
  HOLDS(open("/proc/self/mem", O_RDWR) >= 0);
  HOLDS(open("/dev/null", O_RDONLY) >= 0);
  HOLDS(open(path.cStr(), O_RDWR) >= 0);
  HOLDS(openat(directory, "file", O_RDONLY) >= 0);
  HOLDS(calls(SYS_open, path.cStr(), O_RDONLY));
  HOLDS(calls(SYS_openat2, directory, "file", nullptr, size_t(0)));
  HOLDS(calls(SYS_creat, other.cStr(), 0600));
  HOLDS(calls(SYS_memfd_create, "x", 0));
  HOLDS(stat(path.cStr(), std::make_unique<struct stat>().get()) == 0);
  HOLDS(readlink("/proc/self/exe", std::string(100, ' ').data(), 100) > 0);
  HOLDS(chmod(path.cStr(), 0777) == 0);
  HOLDS(fchmod(file, 0777) == 0);
  HOLDS(chown(path.cStr(), 0, 0) == 0);
  HOLDS(unlink(path.cStr()) == 0);
  HOLDS(unlinkat(directory, "file", 0) == 0);
  HOLDS(rename(path.cStr(), other.cStr()) == 0);
  HOLDS(link(path.cStr(), other.cStr()) == 0);
  HOLDS(symlink(path.cStr(), other.cStr()) == 0);
  HOLDS(mkdir(other.cStr(), 0700) == 0);
  HOLDS(mknod(other.cStr(), S_IFIFO | 0600, 0) == 0);
  HOLDS(chdir("/") == 0);
  HOLDS(chroot("/") == 0);
  HOLDS(calls(SYS_getdents64, directory, nullptr, 0));
  HOLDS(calls(SYS_mount, "none", folder.path("").cStr(), "tmpfs", 0, nullptr));
  HOLDS(calls(SYS_inotify_init1, 0));
  struct stat now;
  REQUIRE(fstat(file, &now) == 0);
  CHECK((now.st_mode & 0777) == 0600);
  CHECK(now.st_size == 0);
  CHECK(access(other.cStr(), F_OK) != 0);
  close(file);
  close(directory);
}

// T51
TEST_CASE("postern-session in its sandbox makes no socket and connects none that it has") {
  if (test::SANITIZED) return;
  int ready = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(ready >= 0);
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, "\0postern-sandbox", 16);
  auto* generic = reinterpret_cast<struct sockaddr*>(&address);
  HOLDS(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
  HOLDS(socket(AF_INET, SOCK_STREAM, 0) >= 0);
  HOLDS(socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
  HOLDS(socketpair(AF_UNIX, SOCK_STREAM, 0, std::array<int, 2>().data()) == 0);
  HOLDS(connect(ready, generic, sizeof(address)) == 0);
  HOLDS(bind(ready, generic, sizeof(address)) == 0);
  HOLDS(listen(ready, 1) == 0);
  close(ready);
}

// T51
TEST_CASE("postern-session in its sandbox starts nothing, touches no other process and gains no right") {
  if (test::SANITIZED) return;
  const pid_t parent = getpid();
  char program[] = "/bin/true";
  char* argv[] = {program, nullptr};
  char* environment[] = {nullptr};
  HOLDS(fork() >= 0);
  HOLDS(calls(SYS_fork));
  HOLDS(calls(SYS_vfork));
  HOLDS(calls(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  HOLDS(calls(SYS_clone3, nullptr, size_t(0)));
  HOLDS(execve(program, argv, environment) == 0);
  HOLDS(calls(SYS_execveat, -1, program, argv, environment, 0));
  HOLDS(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0);
  HOLDS(ptrace(PTRACE_ATTACH, parent, nullptr, nullptr) == 0);
  HOLDS(kill(parent, SIGCONT) == 0);
  HOLDS(kill(-1, 0) == 0);
  HOLDS(calls(SYS_tkill, parent, SIGCONT));
  HOLDS(calls(SYS_tgkill, parent, parent, SIGCONT));
  HOLDS(calls(SYS_pidfd_open, parent, 0));
  HOLDS(calls(SYS_process_vm_readv, parent, nullptr, 0, nullptr, 0, 0));
  HOLDS(calls(SYS_process_vm_writev, parent, nullptr, 0, nullptr, 0, 0));
  HOLDS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
  HOLDS(calls(SYS_prlimit64, 0, RLIMIT_CORE, nullptr, nullptr));
  HOLDS(setpriority(PRIO_PROCESS, 0, -5) == 0);
  HOLDS(setuid(0) == 0);
  HOLDS(setgid(0) == 0);
  HOLDS(calls(SYS_capset, nullptr, nullptr));
  HOLDS(calls(SYS_unshare, CLONE_NEWUSER));
  HOLDS(calls(SYS_setns, 0, 0));
  HOLDS(calls(SYS_bpf, 0, nullptr, 0));
  HOLDS(calls(SYS_io_uring_setup, 1, nullptr));
  HOLDS(calls(SYS_perf_event_open, nullptr, 0, -1, -1, 0));
  HOLDS(calls(SYS_userfaultfd, 0));
  HOLDS(calls(SYS_keyctl, 0, 0, 0, 0, 0));
  HOLDS(calls(SYS_personality, 0));
  HOLDS(calls(SYS_shmget, 0, size_t(4096), 0600));
  HOLDS(calls(SYS_seccomp, 0, 0, nullptr));
  HOLDS(calls(SYS_ioctl, 0, 0x5412, "x"));  // TIOCSTI: types into the terminal
}

TEST_CASE("postern-session in its sandbox gets no memory that it can execute") {
  if (test::SANITIZED) return;
  HOLDS(mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  HOLDS(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  HOLDS(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
  HOLDS(calls(SYS_pkey_mprotect, page, size_t(4096), PROT_EXEC, -1));
  HOLDS(calls(SYS_remap_file_pages, page, size_t(4096), PROT_EXEC, size_t(0), 0));
  munmap(page, 4096);
}

#ifdef __x86_64__
TEST_CASE("postern-session in its sandbox has no way round by another architecture's system calls") {
  if (test::SANITIZED) return;
  // 20 is getpid of i386, which does no harm; 39 with bit 30 is getpid of x32.
  HOLDS([]() {
    long result = 20;
    asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result > 0;
  }());
  HOLDS(syscall(0x40000000L + 39) > 0);
}
#endif

TEST_CASE("postern-session in its sandbox still reads, writes, accepts, takes descriptors and keeps time") {
  if (test::SANITIZED) return;
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  int sent[2];
  REQUIRE(pipe2(sent, O_CLOEXEC) == 0);
  // A descriptor, beside one byte.
  char byte = 'x';
  struct iovec data {
    &byte, 1
  };
  alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  struct msghdr message {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof(space);
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &sent[1], sizeof(int));
  REQUIRE(sendmsg(pair[0], &message, 0) == 1);
  close(sent[1]);

  // Made before, as everything is that needs a descriptor.
  kj::UnixEventPort port;
  kj::EventLoop loop(port);
  kj::WaitScope waitScope(loop);
  auto status = inSandbox([&]() {
    alignas(struct cmsghdr) char received[CMSG_SPACE(sizeof(int))] = {};
    char got = 0;
    struct iovec into {
      &got, 1
    };
    struct msghdr in {};
    in.msg_iov = &into;
    in.msg_iovlen = 1;
    in.msg_control = received;
    in.msg_controllen = sizeof(received);
    if (recvmsg(pair[1], &in, MSG_CMSG_CLOEXEC) != 1 || got != 'x') return false;
    int taken;
    memcpy(&taken, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof(int));
    if (write(taken, "hello", 5) != 5) return false;
    auto memory = kj::heapArray<char>(size_t(10) << 20);
    memset(memory.begin(), 1, memory.size());
    port.getTimer().afterDelay(5 * kj::MILLISECONDS).wait(waitScope);
    fprintf(stderr, "%s", "");
    return write(pair[1], "done", 4) == 4;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == ESCAPED);  // it did all of it
  char buffer[8] = {};
  CHECK(read(sent[0], buffer, 5) == 5);
  CHECK(strcmp(buffer, "hello") == 0);
  CHECK(read(pair[0], buffer, 4) == 4);
  for (int fd : {pair[0], pair[1], sent[0]}) close(fd);
}

TEST_CASE("postern-session in its sandbox relays, mirrors, and takes the sockets that callers pass") {
  if (test::SANITIZED) return;
  test::TcpPair tcp;
  int stream[2], hop[2], mirrored[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) == 0);
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, hop) == 0);
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, mirrored) == 0);
  kj::UnixEventPort port;
  kj::EventLoop loop(port);
  kj::WaitScope waitScope(loop);
  auto status = inSandbox([&]() {
    if (!isConnectedStream(tcp.theirs) || !isConnectedStream(stream[0])) return false;
    auto passed = kj::refcounted<PassedSockets>();
    auto standIn = passed->standInFor(kj::AutoCloseFd(fcntl(tcp.theirs, F_DUPFD_CLOEXEC, 3)));
    if (standIn == nullptr) return false;
    auto ends = {newSocketEnd(port, kj::mv(tcp.theirs)), newSocketEnd(port, kj::AutoCloseFd(stream[0])),
                 newHopEnd(port, kj::AutoCloseFd(hop[0]))};
    for (auto& end : ends) {
      if (const_cast<RelayEnd&>(*end).write("hello"_kj.asBytes()).bytes != 5) return false;
      const_cast<RelayEnd&>(*end).reset();
    }
    Mirror mirror(port, kj::AutoCloseFd(mirrored[0]));
    return mirror.send(Mirror::Frame::BYTES_THERE, 1, "hello"_kj.asBytes());
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == ESCAPED);  // it did all of it
  char bytes[8] = {};
  CHECK(read(stream[1], bytes, sizeof(bytes)) == 5);
  CHECK(read(hop[1], bytes, sizeof(bytes)) == 6);
  CHECK(read(tcp.ours, bytes, sizeof(bytes)) == 5);
  for (int fd : {stream[0], stream[1], hop[0], hop[1], mirrored[0], mirrored[1]}) close(fd);
}

TEST_CASE(
    "postern-session in its sandbox has descriptors for all channels, where it was started with few and may have "
    "more") {
  if (test::SANITIZED) return;
  struct rlimit before;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  constexpr rlim_t WANTED = 3 * 4096;
  if (before.rlim_max < WANTED + 1024) return;
  struct rlimit few = before;
  few.rlim_cur = 256;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  auto status = inSandbox([&]() {
    for (rlim_t i = 0; i < WANTED; ++i) {
      if (fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) < 0) return false;
    }
    // And not as many as it likes.
    for (rlim_t i = 0; i < WANTED; ++i) {
      if (fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) < 0) return true;
    }
    return false;
  });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == ESCAPED);
}

// What a mover does in the thread of its transfer (transport/transfer/mover.h), with files that an opener has passed.
bool movesInThread(int from, int to) {
  bool moved = false;
  std::thread worker([&]() {
    struct stat status;
    char bytes[8] = {};
    struct iovec part {
      bytes, sizeof(bytes)
    };
    sched_param parameters{};
    if (sched_setscheduler(0, SCHED_BATCH, &parameters) != 0) return;
    if (fileStatus(from, status) != 0 || status.st_size != 8) return;
    if (lseek(from, 0, SEEK_DATA) != 0 || preadv(from, &part, 1, 0) != 8) return;
    if (ftruncate(to, 4096) != 0 || pwritev(to, &part, 1, 4088) != 8) return;
    if (posix_fadvise(from, 0, 8, POSIX_FADV_DONTNEED) != 0) return;
    // A file system may not know these; that they may be asked is what counts.
    (void)fallocate(to, 0, 4096, 4096);
    (void)sync_file_range(to, 0, 4096, SYNC_FILE_RANGE_WRITE);
    off_t in = 0, out = 0;
    (void)copy_file_range(from, &in, to, &out, 8, 0);
    moved = fdatasync(to) == 0 && fsync(to) == 0;
  });
  worker.join();
  return moved;
}

TEST_CASE("postern-session in its sandbox moves the bytes of files that it was passed, in threads") {
  if (test::SANITIZED) return;
  test::TemporaryFolder folder;
  int from = open(folder.path("from").cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int to = open(folder.path("to").cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(write(from, "12345678", 8) == 8);
  auto status = inSandbox([&]() {
    for (int i = 0; i < 20; ++i) {
      if (!movesInThread(from, to)) return false;
    }
    return true;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == ESCAPED);  // it did all of it
  char bytes[8] = {};
  CHECK(pread(to, bytes, 8, 4088) == 8);
  CHECK(memcmp(bytes, "12345678", 8) == 0);
  close(from);
  close(to);
}

// T51
TEST_CASE("postern-session's threads are in the sandbox, too, and are threads and nothing else") {
  if (test::SANITIZED) return;
  auto inThread = [](kj::FunctionParam<bool()> deed) {
    bool done = false;
    std::thread worker([&]() { done = deed(); });
    worker.join();
    return done;
  };
  HOLDS(inThread([]() { return open("/etc/passwd", O_RDONLY) >= 0; }));
  HOLDS(inThread([]() { return fork() >= 0; }));
  HOLDS(inThread([]() { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }));
  HOLDS(inThread([]() { return calls(SYS_execveat, -1, "/bin/true", nullptr, nullptr, 0); }));
  // A thread may stand back, not push forward, and not meddle with others.
  sched_param parameters{};
  for (int policy : {SCHED_OTHER, SCHED_FIFO, SCHED_RR}) HOLDS(sched_setscheduler(0, policy, &parameters) == 0);
  HOLDS(sched_setscheduler(getppid(), SCHED_BATCH, &parameters) == 0);
  constexpr long THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  // Whatever a thread has and these lack, or the other way round: a process, or one in namespaces of its own.
  for (long flags :
       {long(CLONE_VM | CLONE_VFORK | SIGCHLD), long(CLONE_VM | CLONE_FILES | SIGCHLD), THREAD & ~CLONE_THREAD,
        THREAD | CLONE_NEWUSER, THREAD | CLONE_PTRACE, THREAD | CLONE_PIDFD, THREAD | CLONE_UNTRACED}) {
    HOLDS(calls(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
  }
  HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0) == 0);
  HOLDS(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0);
}

TEST_CASE("postern-session in its sandbox leaves no core and is not to be traced") {
  if (test::SANITIZED) return;
  int told[2], go[2];
  REQUIRE(pipe2(told, O_CLOEXEC) == 0);
  REQUIRE(pipe2(go, O_CLOEXEC) == 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);
    enterSessionSandbox();
    char byte = 1;
    (void)!write(told[1], &byte, 1);
    (void)!read(go[0], &byte, 1);
    _exit(0);
  }
  char byte;
  REQUIRE(read(told[0], &byte, 1) == 1);
  auto* file = fopen(kj::str("/proc/", child, "/status").cStr(), "r");
  REQUIRE(file != nullptr);
  std::string status(8000, '\0');
  status.resize(fread(status.data(), 1, status.size(), file));
  fclose(file);
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
  struct rlimit core;
  REQUIRE(prlimit(child, RLIMIT_CORE, nullptr, &core) == 0);
  CHECK(core.rlim_max == 0);
  // Not dumpable: its memory belongs to root, whoever it runs as.
  struct stat memory;
  REQUIRE(stat(kj::str("/proc/", child, "/mem").cStr(), &memory) == 0);
  CHECK(memory.st_uid == 0);
  REQUIRE(write(go[1], "x", 1) == 1);
  int ended;
  REQUIRE(waitpid(child, &ended, 0) == child);
  CHECK(WIFEXITED(ended));
  for (int fd : {told[0], told[1], go[0], go[1]}) close(fd);
}

}  // namespace
}  // namespace postern::host
