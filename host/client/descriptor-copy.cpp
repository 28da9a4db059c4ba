#include "host/client/descriptor-copy.h"

#include <errno.h>
#include <kj/debug.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/client/quiet-thread.h"

namespace postern::client {

namespace {

using Kind = CopyEnd::Kind;
using Bytes = kj::ArrayPtr<const kj::byte>;

constexpr size_t BUFFER_BYTES = size_t(64) << 10;
constexpr short GONE = POLLERR | POLLHUP | POLLNVAL;

kj::AutoCloseFd newEvent() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

mode_t typeOf(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_mode & S_IFMT : 0;
}

bool isTemporary(int error) {
  return error == EINTR || error == EAGAIN || error == EWOULDBLOCK;
}

// The thread's work. Waits are polls beside the stop event; what follows a poll does not wait, as long as nobody else
// reads the input or writes to the output.
class Mover {
 public:
  Mover(int from, int to, int stop) : from(from), to(to), stop(stop), outputType(typeOf(to)) {}

  // Null: stopped.
  kj::Maybe<CopyEnd> run();

 private:
  const int from;
  const int to;
  const int stop;
  const mode_t outputType;
  bool stopped = false;

  struct Events {
    short from = 0;
    short to = 0;
  };
  Events waitFor(short fromEvents, short toEvents);
  // Null: all of it was written, or it was stopped.
  kj::Maybe<CopyEnd> writeAll(Bytes bytes);
  ssize_t writeSome(Bytes bytes) const;
};

kj::Maybe<CopyEnd> Mover::run() {
  auto buffer = kj::heapArray<kj::byte>(BUFFER_BYTES);
  for (;;) {
    auto events = waitFor(POLLIN, 0);
    if (stopped) return nullptr;
    if (events.from == 0) {
      if ((events.to & GONE) != 0) return CopyEnd{Kind::OUTPUT_GONE};
      continue;
    }
    ssize_t got = ::read(from, buffer.begin(), buffer.size());
    if (got < 0 && isTemporary(errno)) continue;
    if (got < 0) return CopyEnd{Kind::INPUT_FAILED, errno};
    if (got == 0) break;
    KJ_IF_MAYBE (end, writeAll(buffer.slice(0, size_t(got)))) return *end;
    if (stopped) return nullptr;
  }
  if (outputType == S_IFSOCK) shutdown(to, SHUT_WR);
  return CopyEnd{};
}

// A descriptor that nothing is wanted of still says that it is gone, if `toEvents` is 0; the input says nothing then.
Mover::Events Mover::waitFor(short fromEvents, short toEvents) {
  pollfd polled[3] = {{stop, POLLIN, 0}, {to, toEvents, 0}, {fromEvents == 0 ? -1 : from, fromEvents, 0}};
  while (poll(polled, kj::size(polled), -1) < 0) KJ_ASSERT(errno == EINTR);
  stopped = polled[0].revents != 0;
  return {polled[2].revents, polled[1].revents};
}

kj::Maybe<CopyEnd> Mover::writeAll(Bytes bytes) {
  while (bytes.size() > 0) {
    waitFor(0, POLLOUT);
    if (stopped) return nullptr;
    ssize_t written = writeSome(bytes);
    if (written >= 0) {
      bytes = bytes.slice(size_t(written), bytes.size());
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return CopyEnd{Kind::OUTPUT_GONE};
    } else if (!isTemporary(errno)) {
      return CopyEnd{Kind::OUTPUT_FAILED, errno};
    }
  }
  return nullptr;
}

ssize_t Mover::writeSome(Bytes bytes) const {
  if (outputType == S_IFSOCK) return send(to, bytes.begin(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  // A pipe that polls as writable has room for this much.
  size_t atOnce = outputType == S_IFREG ? bytes.size() : kj::min(bytes.size(), size_t(PIPE_BUF));
  return ::write(to, bytes.begin(), atOnce);
}

}  // namespace

DescriptorCopy::Stop::Stop() : event(newEvent()) {}

DescriptorCopy::DescriptorCopy(kj::AutoCloseFd from, kj::AutoCloseFd to)
    : stop(kj::atomicRefcounted<Stop>()), over(nullptr) {
  auto ended = kj::newPromiseAndCrossThreadFulfiller<CopyEnd>();
  over = kj::mv(ended.promise);
  thread = newQuietThread([from = kj::mv(from), to = kj::mv(to), stop = kj::atomicAddRef(*stop),
                           ended = kj::mv(ended.fulfiller)]() mutable {
    auto end = Mover(from, to, stop->event).run();
    from = nullptr;
    to = nullptr;
    KJ_IF_MAYBE (how, end) ended->fulfill(kj::mv(*how));
  });
}

DescriptorCopy::~DescriptorCopy() noexcept(false) {
  eventfd_write(stop->event, 1);
  thread->detach();
}

}  // namespace postern::client
