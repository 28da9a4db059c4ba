#include "host/cli/unix-world.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/cli/exit-status.h"

namespace postern::cli {

namespace {

constexpr int INTERRUPTED = static_cast<int>(ExitStatus::INTERRUPTED);

// What the signal handler knows; a handler has no other way to know anything.
volatile sig_atomic_t interruptWriteEnd = -1;
volatile sig_atomic_t interrupts = 0;

void onInterrupt(int) {
  interrupts = interrupts + 1;
  if (interrupts > 1 || interruptWriteEnd < 0) _exit(INTERRUPTED);
  char byte = 0;
  int error = errno;
  if (::write(interruptWriteEnd, &byte, 1) != 1) _exit(INTERRUPTED);
  errno = error;
}

kj::AutoCloseFd listenForInterrupt() {
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  interruptWriteEnd = ends[1];
  struct sigaction action {};
  action.sa_handler = onInterrupt;  // without SA_RESTART: a write that waits for its reader ends
  KJ_SYSCALL(sigaction(SIGINT, &action, nullptr));
  return kj::AutoCloseFd(ends[0]);
}

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

[[noreturn]] void endFor(int error) {
  // A reader that has gone (`postern ... | head`) wants no complaint.
  if (error != EPIPE) {
    auto text = kj::str("postern: cannot write the output: ", strerror(error), '\n');
    [[maybe_unused]] auto written = ::write(STDERR_FILENO, text.begin(), text.size());
  }
  _exit(static_cast<int>(ExitStatus::FAILED));
}

void writeAll(int fd, kj::StringPtr text) {
  auto rest = text.asArray();
  while (rest.size() > 0) {
    ssize_t n = ::write(fd, rest.begin(), rest.size());
    if (n >= 0) {
      rest = rest.slice(static_cast<size_t>(n), rest.size());
      continue;
    }
    int error = errno;
    if (error == EINTR && interrupts > 0) _exit(INTERRUPTED);
    if (error == EAGAIN) {
      // Somebody made the terminal or pipe that we share with him non-blocking.
      pollfd waited = {fd, POLLOUT, 0};
      poll(&waited, 1, -1);
    } else if (error != EINTR) {
      endFor(error);
    }
  }
}

}  // namespace

UnixWorld::UnixWorld()
    : terminal(isatty(STDOUT_FILENO) == 1),
      colours(terminal && (getenv("NO_COLOR") == nullptr || *getenv("NO_COLOR") == '\0')),
      asyncIo(kj::setupAsyncIo()),
      interruptPipe(asyncIo.lowLevelProvider->wrapInputFd(listenForInterrupt())),
      interrupted(interruptPipe->read(&interruptByte, 1, 1).ignoreResult().fork()) {}

UnixWorld::~UnixWorld() noexcept(false) {
  signal(SIGINT, SIG_DFL);
  int end = interruptWriteEnd;
  interruptWriteEnd = -1;
  close(end);
}

void UnixWorld::out(kj::StringPtr text) {
  writeAll(STDOUT_FILENO, text);
}

void UnixWorld::error(kj::StringPtr text) {
  writeAll(STDERR_FILENO, text);
}

kj::Promise<client::Outcome<kj::Own<client::ControlClient>>> UnixWorld::connectControl(kj::StringPtr path) {
  return client::ControlClient::connect(io(), timer(), path);
}

kj::TimePoint UnixWorld::now() {
  return kj::systemPreciseMonotonicClock().now();
}

kj::String UnixWorld::currentFolder() {
  auto* folder = getcwd(nullptr, 0);
  if (folder == nullptr) return kj::str("/");
  KJ_DEFER(free(folder));
  return kj::str(folder);
}

int UnixWorld::currentFolderHandle() {
  return AT_FDCWD;
}

kj::String UnixWorld::temporaryFolder() {
  auto* folder = getenv("TMPDIR");
  return kj::str(folder != nullptr && *folder != '\0' ? folder : "/tmp");
}

bool UnixWorld::errorIsTerminal() {
  return isatty(STDERR_FILENO) == 1;
}

size_t UnixWorld::errorColumns() {
  winsize size{};
  bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

bool UnixWorld::takesUtf8() {
  for (auto* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    auto* value = getenv(name);
    if (value == nullptr || *value == '\0') continue;
    return strcasestr(value, "utf-8") != nullptr || strcasestr(value, "utf8") != nullptr;
  }
  return false;
}

kj::AutoCloseFd UnixWorld::inputStream() {
  return copyOf(STDIN_FILENO);
}

kj::AutoCloseFd UnixWorld::outputStream() {
  return copyOf(STDOUT_FILENO);
}

void UnixWorld::endOutput() {
  shutdown(STDOUT_FILENO, SHUT_WR);  // of a socket, which others may have, too
  kj::AutoCloseFd nowhere(open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (nowhere.get() >= 0) dup2(nowhere, STDOUT_FILENO);
}

}  // namespace postern::cli
