#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "transport/receive.h"
#include "transport/relay/relay-end.h"
#include "transport/relay/socket-watch.h"

namespace postern {

namespace {

enum Kind : kj::byte { BYTES = 0, FINISH = 1, RESETS = 2 };

bool isNothingNow(int error) {
  return error == EAGAIN || error == EWOULDBLOCK;
}

class HopEnd final : public RelayEnd {
 public:
  HopEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket) : fd(kj::mv(socket)), watch(port, fd) {
    refuseDescriptors(fd);
  }
  ~HopEnd() noexcept(false) {
    if (!receivedAll || sending != Sending::TOLD) reset();
    watch.stop();
  }

  Result read(kj::ArrayPtr<kj::byte> space) override;
  kj::Promise<void> whenReadable() override { return watch.whenReadable(); }
  Result write(kj::ArrayPtr<const kj::byte> bytes) override;
  kj::Promise<void> whenWritable() override;
  void finish() override;
  void reset() override;
  kj::Promise<void> whenReset() override;

 private:
  enum class Sending { OPEN, FINISHED, TOLD };  // TOLD: so has the other process been

  StrangersFd fd;  // null: reset
  SocketWatch watch;
  bool receivedAll = false;
  size_t taken = 0;  // of the bytes of the packet that is next in the queue
  Sending sending = Sending::OPEN;

  struct Look {
    ssize_t packet;  // its whole length; 0 at the end; -1 and errno
    kj::byte kind;
    bool isWhole;  // and brings nothing besides
  };
  Look look(kj::ArrayPtr<kj::byte> space, int flags);

  bool isReset() const { return fd < 0; }
  bool wasReset();
  Result failed();
  Result readBehindFinish();
  Result judge(const Look& packet, size_t room);
  void tellFinish();
};

// The packet that is next: its first byte apart, those that were taken from it before into the void, the rest into
// `space`.
HopEnd::Look HopEnd::look(kj::ArrayPtr<kj::byte> space, int flags) {
  kj::byte kind = RESETS;
  kj::byte wasTaken[4096];
  iovec pieces[2 + MAX_BULK_DATA_BYTES / sizeof(wasTaken) + 1];
  size_t count = 0;
  pieces[count++] = {&kind, 1};
  for (size_t left = taken; left > 0; left -= pieces[count - 1].iov_len) {
    pieces[count++] = {wasTaken, kj::min(left, sizeof(wasTaken))};
  }
  pieces[count++] = {space.begin(), space.size()};
  auto received = receive(fd, kj::arrayPtr(pieces, count), flags | MSG_TRUNC);
  return {received.bytes, kind, !received.broughtMore};
}

RelayEnd::Result HopEnd::read(kj::ArrayPtr<kj::byte> space) {
  if (isReset()) return {State::RESET, 0};
  if (receivedAll) return readBehindFinish();
  space = space.slice(0, kj::min(space.size(), MAX_BULK_DATA_BYTES - taken));
  // Where a whole packet has room it is taken at once; else it stays in the queue until all of it was.
  bool takesAll = space.size() == MAX_BULK_DATA_BYTES;
  auto packet = look(space, takesAll ? 0 : MSG_PEEK);
  if (packet.packet < 0 && isNothingNow(errno)) {
    watch.nothingToRead();
    return {State::OPEN, 0};
  }
  auto result = judge(packet, space.size());
  if (result.state == State::RESET || takesAll) return result;
  taken += result.bytes;
  if (taken + 1 >= size_t(packet.packet)) {
    taken = 0;
    receiveBytes(fd, nullptr);
  }
  return result;
}

// T95
RelayEnd::Result HopEnd::judge(const Look& packet, size_t room) {
  if (packet.packet <= 0 || !packet.isWhole) return failed();
  size_t bytes = size_t(packet.packet) - 1;
  if (packet.kind == BYTES && bytes > 0 && bytes <= MAX_BULK_DATA_BYTES) {
    return {State::OPEN, kj::min(bytes - taken, room)};
  }
  if (packet.kind != FINISH || bytes > 0) return failed();
  receivedAll = true;
  return {State::FINISHED, 0};
}

RelayEnd::Result HopEnd::readBehindFinish() {
  watch.nothingToRead();
  return wasReset() ? failed() : Result{State::FINISHED, 0};
}

RelayEnd::Result HopEnd::write(kj::ArrayPtr<const kj::byte> bytes) {
  KJ_REQUIRE(sending == Sending::OPEN, "bytes behind the end");
  if (isReset()) return {State::RESET, 0};
  bytes = bytes.slice(0, kj::min(bytes.size(), MAX_BULK_DATA_BYTES));
  kj::byte kind = BYTES;
  // The kernel only reads; iovec has no const form.
  iovec pieces[2] = {{&kind, 1}, {const_cast<kj::byte*>(bytes.begin()), bytes.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) {
    watch.tookSome();
    return {State::OPEN, bytes.size()};
  }
  if (!isNothingNow(errno)) return failed();
  watch.full();
  return {State::OPEN, 0};
}

void HopEnd::finish() {
  if (isReset() || sending != Sending::OPEN) return;
  sending = Sending::FINISHED;
  tellFinish();
}

void HopEnd::tellFinish() {
  kj::byte kind = FINISH;
  if (send(fd, &kind, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) {
    sending = Sending::TOLD;
  } else if (isNothingNow(errno)) {
    watch.full();
  } else {
    reset();
  }
}

kj::Promise<void> HopEnd::whenWritable() {
  auto waiting = watch.whenWritable();
  if (sending != Sending::FINISHED) return waiting;
  return waiting.then([this]() -> kj::Promise<void> {
    if (isReset()) return kj::READY_NOW;
    tellFinish();
    return sending == Sending::FINISHED ? whenWritable() : kj::READY_NOW;
  });
}

void HopEnd::reset() {
  if (isReset()) return;
  watch.stop();
  kj::byte kind = RESETS;
  // Where there is no room for it, the end alone says the same.
  send(fd, &kind, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  // Not close() alone: another process may hold a duplicate.
  shutdown(fd, SHUT_RDWR);
  fd = {};
}

RelayEnd::Result HopEnd::failed() {
  reset();
  return {State::RESET, 0};
}

// The other process ends its socket only once both directions have ended; and behind its `finished` there is only an
// end.
// T97
bool HopEnd::wasReset() {
  pollfd asked{fd, POLLIN, 0};
  if (poll(&asked, 1, 0) <= 0) return false;
  bool hungUp = (asked.revents & POLLHUP) != 0;
  if ((asked.revents & (POLLERR | POLLNVAL)) != 0 || (hungUp && sending != Sending::TOLD)) return true;
  return receivedAll && !hungUp && (asked.revents & POLLIN) != 0;
}

kj::Promise<void> HopEnd::whenReset() {
  if (isReset()) return kj::READY_NOW;
  auto hungUp = watch.whenHungUp();
  if (wasReset()) return kj::READY_NOW;
  return hungUp.then([this] { return whenReset(); });
}

}  // namespace

kj::Own<RelayEnd> newHopEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket) {
  return kj::heap<HopEnd>(port, kj::mv(socket));
}

}  // namespace postern
