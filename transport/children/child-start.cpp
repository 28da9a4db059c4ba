#include "transport/children/child-start.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/connection.h"

namespace postern {

namespace {

constexpr int SOCKET_FD = 3;
// Where the child keeps the pipe that tells of its failure, until execve() closes it.
constexpr int FAILURE_FD = 4;
// What a program may have open unless it asks for more, however much this process has asked for: as a service manager
// starts it, and what select(2) can name.
constexpr rlim_t USUAL_DESCRIPTORS = 1024;
// A pipe takes so much without a reader.
constexpr size_t PIPE_BYTES = 4096;

struct Failure {
  int step;  // index into STEPS
  int error;
};
constexpr kj::StringPtr STEPS[] = {"its descriptors"_kj, "its group"_kj, "its identity"_kj, "the program"_kj};
enum Step { DESCRIPTORS, GROUP, IDENTITY, PROGRAM };

struct Pipe {
  kj::AutoCloseFd read;
  kj::AutoCloseFd write;
};

// Above 9, out of the way of what the child puts at 0 to 4.
kj::AutoCloseFd aside(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 10));
  return kj::AutoCloseFd(copy);
}

Pipe newPipe() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  kj::AutoCloseFd first(fds[0]), second(fds[1]);
  return {aside(first), aside(second)};
}

// For reading, with the text in it and its end behind it: a pipe, or what has room for more, to be changed by nobody.
kj::AutoCloseFd newInput(kj::StringPtr text) {
  if (text.size() <= PIPE_BYTES) {
    auto pipe = newPipe();
    kj::FdOutputStream(pipe.write.get()).write(text.begin(), text.size());
    return kj::mv(pipe.read);
  }
  int fd;
  KJ_SYSCALL(fd = memfd_create("input", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kj::AutoCloseFd file(fd);
  kj::FdOutputStream(fd).write(text.begin(), text.size());
  KJ_SYSCALL(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
  KJ_SYSCALL(lseek(fd, 0, SEEK_SET));
  return aside(file);
}

// All that the child needs after fork(), where nothing may allocate.
struct Plan {
  kj::Vector<char*> argv;
  kj::Vector<char*> environment;
  kj::Maybe<Identity> identity;
  kj::ArrayPtr<const gid_t> groups;
  bool detached;
  pid_t parent;
  int input;
  int output;
  int failure;
  int socket;  // -1: none
};

[[noreturn]] void fail(Step step) {
  Failure failure{step, errno};
  ssize_t written = write(FAILURE_FD, &failure, sizeof(failure));
  _exit(written == sizeof(failure) ? 127 : 126);
}

void takeDescriptors(const Plan& plan) {
  bool done = dup2(plan.failure, FAILURE_FD) >= 0 && fcntl(FAILURE_FD, F_SETFD, FD_CLOEXEC) == 0 &&
              dup2(plan.input, STDIN_FILENO) >= 0 && dup2(plan.output, STDOUT_FILENO) >= 0 &&
              (plan.socket >= 0 ? dup2(plan.socket, SOCKET_FD) >= 0 : close_range(SOCKET_FD, SOCKET_FD, 0) == 0) &&
              close_range(FAILURE_FD + 1, ~0u, 0) == 0;
  if (!done) fail(DESCRIPTORS);
}

// Signals were blocked before fork(): a handler of the parent never runs in the child.
void takeDefaults() {
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);  // those that cannot be set stay
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  rlimit noCore{0, 0};
  setrlimit(RLIMIT_CORE, &noCore);
  rlimit descriptors;
  if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0 && descriptors.rlim_cur > USUAL_DESCRIPTORS) {
    descriptors.rlim_cur = USUAL_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &descriptors);
  }
  umask(022);
}

void takeIdentity(const Plan& plan) {
  KJ_IF_MAYBE (identity, plan.identity) {
    // Not by the C library's functions, which look for other threads to take along.
    bool done = geteuid() != 0 || (syscall(SYS_setgroups, plan.groups.size(), plan.groups.begin()) == 0 &&
                                   syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid) == 0 &&
                                   syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid) == 0);
    // Root has nothing left to gain, and what it lets in (an sshd its users) may have to.
    bool bound = identity->uid == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    if (!done || !bound) fail(IDENTITY);
  }
}

[[noreturn]] void becomeChild(const Plan& plan) {
  takeDescriptors(plan);
  takeDefaults();
  if ((plan.detached ? setsid() : setpgid(0, 0)) < 0 || chdir("/") < 0) fail(GROUP);
  takeIdentity(plan);
  // After the identity, whose change undoes it. The parent may have died before.
  if (!plan.detached) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan.parent) _exit(126);
  }
  execve(plan.argv[0], plan.argv.begin(), plan.environment.begin());
  fail(PROGRAM);
}

kj::Vector<char*> pointers(kj::ArrayPtr<const kj::String> texts) {
  kj::Vector<char*> result;
  for (auto& text : texts) result.add(const_cast<char*>(text.cStr()));
  result.add(nullptr);
  return result;
}

pid_t forkChild(const Plan& plan) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  if (pid == 0) becomeChild(plan);
  int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

// What the child has at 0 and 1, and what this process keeps of it.
struct Stdio {
  kj::AutoCloseFd input;
  kj::AutoCloseFd output;
  kj::AutoCloseFd kept;  // null: nothing
};

Stdio newStdio(const ChildDescription& description) {
  KJ_IF_MAYBE (given, description.stdio) {
    int flags;
    KJ_SYSCALL(flags = fcntl(*given, F_GETFL));
    KJ_SYSCALL(fcntl(*given, F_SETFL, flags & ~O_NONBLOCK));
    return {aside(*given), aside(*given), nullptr};
  }
  auto output = newPipe();
  KJ_SYSCALL(fcntl(output.read, F_SETFL, O_NONBLOCK));
  return {newInput(description.input), kj::mv(output.write), kj::mv(output.read)};
}

}  // namespace

kj::Maybe<kj::String> startFailure(int start, kj::StringPtr program) {
  Failure failure;
  if (read(start, &failure, sizeof(failure)) != sizeof(failure)) return nullptr;
  if (failure.step < 0 || failure.step > PROGRAM) return nullptr;
  return kj::str("cannot start ", program, ": ", STEPS[failure.step], ": ", errorWords(failure.error));
}

// T61
kj::OneOf<StartedChild, kj::String> startChild(const ChildDescription& description) {
  KJ_REQUIRE(description.argv.size() > 0 && description.argv[0].startsWith("/"), "a program without an absolute path");
  auto stdio = newStdio(description);
  auto failure = newPipe();
  KJ_SYSCALL(fcntl(failure.read, F_SETFL, O_NONBLOCK));
  kj::AutoCloseFd socket;
  KJ_IF_MAYBE (given, description.socket) socket = aside(*given);

  Plan plan{pointers(description.argv),
            pointers(description.environment),
            description.identity,
            description.groups,
            description.detached,
            getpid(),
            stdio.input,
            stdio.output,
            failure.write,
            socket};
  pid_t pid = forkChild(plan);
  if (pid < 0) {
    int error = errno;
    return kj::str("cannot start ", description.argv[0], ": ", errorWords(error));
  }
  // The child does it as well; whoever comes first.
  if (!description.detached) setpgid(pid, pid);
  int pidfd = int(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    int error = errno;
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    return kj::str("cannot watch processes: ", errorWords(error));
  }
  return StartedChild{pid, kj::AutoCloseFd(pidfd), kj::mv(stdio.kept), kj::mv(failure.read)};
}

}  // namespace postern
