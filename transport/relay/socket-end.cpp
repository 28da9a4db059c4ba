#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/socket.h>

#include "transport/relay/relay-end.h"
#include "transport/relay/socket-watch.h"

namespace postern {

namespace {

int socketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

bool isTcp(int fd) {
  int domain = socketOption(fd, SO_DOMAIN);
  return domain == AF_INET || domain == AF_INET6;
}

class SocketEnd final : public RelayEnd {
 public:
  SocketEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket)
      : tcp(isTcp(socket)), fd(kj::mv(socket)), watch(port, fd) {}
  ~SocketEnd() noexcept(false) {
    if (!receivedAll || !sentAll) reset();
    watch.stop();
  }

  Result read(kj::ArrayPtr<kj::byte> space) override;
  Result write(kj::ArrayPtr<const kj::byte> bytes) override;
  kj::Promise<void> whenReadable() override { return watch.whenReadable(); }
  kj::Promise<void> whenWritable() override {
    if (sentAll) return kj::READY_NOW;
    return watch.whenWritable();
  }
  void finish() override;
  void reset() override;
  kj::Promise<void> whenReset() override;

 private:
  const bool tcp;
  kj::AutoCloseFd fd;  // null: reset
  SocketWatch watch;
  bool receivedAll = false;
  bool sentAll = false;

  bool isReset() const { return fd.get() < 0; }
  bool wasReset();
  Result failed();
};

RelayEnd::Result SocketEnd::read(kj::ArrayPtr<kj::byte> space) {
  if (isReset()) return {State::RESET, 0};
  ssize_t got = 0;
  if (!receivedAll) {
    do {
      got = recv(fd, space.begin(), space.size(), MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got > 0) return {State::OPEN, size_t(got)};
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return failed();
  }
  watch.nothingToRead();
  if (got < 0) return {State::OPEN, 0};
  receivedAll = true;
  return wasReset() ? failed() : Result{State::FINISHED, 0};
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
  if (errno != EAGAIN && errno != EWOULDBLOCK) return failed();
  watch.full();
  return {State::OPEN, 0};
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
    linger atOnce{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &atOnce, sizeof(atOnce));
  } else {
    // Also what others have duplicates of.
    shutdown(fd, SHUT_RDWR);
  }
  fd = nullptr;
}

// An error is a reset. So is an end of both directions of which this one is not ours, but for a Unix socket: there it
// is how an orderly close() looks, and what was sent before has still to be read.
bool SocketEnd::wasReset() {
  pollfd asked{fd, 0, 0};
  if (poll(&asked, 1, 0) <= 0) return false;
  return (asked.revents & (POLLERR | POLLNVAL)) != 0 || (tcp && !sentAll && (asked.revents & POLLHUP) != 0);
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
    shutdown(duplicate, SHUT_RDWR);
    return;
  }
  // RST now, whoever else has the socket open.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  if (connect(duplicate, &nobody, sizeof(nobody)) < 0) shutdown(duplicate, SHUT_RDWR);
}

}  // namespace postern
