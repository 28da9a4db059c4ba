#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/socket.h>

#include "transport/receive.h"
#include "transport/relay/relay-end.h"
#include "transport/relay/socket-watch.h"

namespace postern {

namespace {

// From the last byte of a peer that takes no more to the reset that tells the writer: time for that byte to arrive.
constexpr auto LINGER = 2 * kj::SECONDS;
// For so long nobody may take anything of what such a peer had said; then the writer learns of it none the less, since
// he may be the one who would have to read.
constexpr auto STALLED = 10 * kj::SECONDS;
constexpr linger CUT{1, 0};

int socketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

bool isTcp(int fd) {
  int domain = socketOption(fd, SO_DOMAIN);
  return domain == AF_INET || domain == AF_INET6;
}

bool isCut(int fd) {
  linger mark{};
  socklen_t size = sizeof(mark);
  return getsockopt(fd, SOL_SOCKET, SO_LINGER, &mark, &size) == 0 && mark.l_onoff == CUT.l_onoff;
}

class SocketEnd final : public RelayEnd {
 public:
  SocketEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket)
      : timer(port.getTimer()), tcp(isTcp(socket)), fd(kj::mv(socket)), watch(port, fd) {
    if (!tcp) refuseDescriptors(fd);
  }
  ~SocketEnd() noexcept(false) {
    if (!receivedAll || !sentAll) reset();
    watch.stop();
  }

  Result read(kj::ArrayPtr<kj::byte> space) override;
  Result write(kj::ArrayPtr<const kj::byte> bytes) override;
  kj::Promise<void> whenReadable() override;
  kj::Promise<void> whenWritable() override;
  void finish() override;
  void reset() override;
  kj::Promise<void> whenReset() override;

 private:
  kj::Timer& timer;
  const bool tcp;
  StrangersFd fd;  // null: reset
  SocketWatch watch;
  bool receivedAll = false;
  bool sentAll = false;
  bool takesNoMore = false;               // a Unix peer; what it had said is still read
  kj::Maybe<kj::TimePoint> lingersUntil;  // from then on, and later with each piece that is read

  bool isReset() const { return fd < 0; }
  bool hasLingered() const;
  bool hasClosed();
  bool wasReset();
  Result failed();
};

RelayEnd::Result SocketEnd::read(kj::ArrayPtr<kj::byte> space) {
  if (isReset()) return {State::RESET, 0};
  ssize_t got = 0;
  if (!receivedAll) {
    got = receiveBytes(fd, space);
    if (got > 0) {
      if (takesNoMore) lingersUntil = timer.now() + STALLED;
      return {State::OPEN, size_t(got)};
    }
    if (got < 0 && errno == ECONNRESET && !tcp) {
      takesNoMore = true;  // it closed with something unread, and all that it had said was read
      got = 0;
    }
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return failed();
  }
  watch.nothingToRead();
  if (got < 0) return {State::OPEN, 0};
  if (!receivedAll && takesNoMore) lingersUntil = timer.now() + LINGER;
  receivedAll = true;
  return wasReset() || hasLingered() ? failed() : Result{State::FINISHED, 0};
}

RelayEnd::Result SocketEnd::write(kj::ArrayPtr<const kj::byte> bytes) {
  KJ_REQUIRE(!sentAll, "bytes behind the end");
  if (isReset()) return {State::RESET, 0};
  ssize_t sent;
  do {
    sent = send(fd, bytes.begin(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) {
    watch.tookSome();
    return {State::OPEN, size_t(sent)};
  }
  if (errno == EPIPE && hasClosed()) {
    if (!takesNoMore) lingersUntil = timer.now() + (receivedAll ? LINGER : STALLED);
    takesNoMore = true;
    return hasLingered() ? failed() : Result{State::OPEN, 0};
  }
  if (errno != EAGAIN && errno != EWOULDBLOCK) return failed();
  watch.full();
  return {State::OPEN, 0};
}

kj::Promise<void> SocketEnd::whenReadable() {
  KJ_IF_MAYBE (until, lingersUntil) {
    if (receivedAll) return timer.atTime(*until);
  }
  return watch.whenReadable();
}

kj::Promise<void> SocketEnd::whenWritable() {
  if (sentAll) return kj::READY_NOW;
  KJ_IF_MAYBE (until, lingersUntil) return timer.atTime(*until);
  return watch.whenWritable();
}

// A Unix peer, as a whole: one that reads no more and stays has reset.
bool SocketEnd::hasClosed() {
  pollfd asked{fd, 0, 0};
  return !tcp && poll(&asked, 1, 0) == 1 && (asked.revents & POLLHUP) != 0 && !isCut(fd);
}

bool SocketEnd::hasLingered() const {
  KJ_IF_MAYBE (until, lingersUntil) return timer.now() >= *until;
  return false;
}

void SocketEnd::finish() {
  if (isReset() || sentAll) return;
  sentAll = true;
  shutdown(fd, SHUT_WR);
}

RelayEnd::Result SocketEnd::failed() {
  reset();
  return {State::RESET, 0};
}

// T94
void SocketEnd::reset() {
  if (isReset()) return;
  watch.stop();
  if (tcp) {
    // What is closed like this sends RST. A shutdown before it would send FIN, which a peer takes for a good end.
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &CUT, sizeof(CUT));
  } else {
    // Also what others have duplicates of.
    shutdown(fd, SHUT_RDWR);
  }
  fd = {};
}

// Of TCP an error, and an end of both directions of which this one is not ours. Of a Unix socket those are how a
// close() looks, and what was sent before it has still to be read; unless the socket is marked as cut.
bool SocketEnd::wasReset() {
  pollfd asked{fd, 0, 0};
  if (poll(&asked, 1, 0) <= 0) return false;
  if (!tcp) return (asked.revents & POLLNVAL) != 0 || ((asked.revents & POLLHUP) != 0 && isCut(fd));
  return (asked.revents & (POLLERR | POLLNVAL)) != 0 || (!sentAll && (asked.revents & POLLHUP) != 0);
}

kj::Promise<void> SocketEnd::whenReset() {
  if (isReset()) return kj::READY_NOW;
  auto hungUp = watch.whenHungUp();
  if (wasReset()) return kj::READY_NOW;
  return hungUp.then([this] { return whenReset(); });
}

}  // namespace

kj::Own<RelayEnd> newSocketEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket) {
  return kj::heap<SocketEnd>(port, kj::mv(socket));
}

bool isStreamSocket(int fd) {
  bool known = isTcp(fd) || socketOption(fd, SO_DOMAIN) == AF_UNIX;
  return known && socketOption(fd, SO_TYPE) == SOCK_STREAM && socketOption(fd, SO_ACCEPTCONN) == 0;
}

// T97
void cutSocket(int duplicate) {
  if (!isTcp(duplicate)) {
    // Means nothing to a Unix socket but what it says to whoever has it.
    setsockopt(duplicate, SOL_SOCKET, SO_LINGER, &CUT, sizeof(CUT));
    shutdown(duplicate, SHUT_RDWR);
    return;
  }
  // RST now, whoever else has the socket open.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  if (connect(duplicate, &nobody, sizeof(nobody)) < 0) shutdown(duplicate, SHUT_RDWR);
}

}  // namespace postern
