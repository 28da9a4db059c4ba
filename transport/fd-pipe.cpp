#include "transport/fd-pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <limits>

#include "protocol/limits.h"
#include "transport/receive.h"

namespace postern {

namespace {

constexpr PipeResult NOTHING_NOW = {PipeState::OPEN, 0};
constexpr PipeResult END = {PipeState::ENDED, 0};

bool isNothingNow(int error) {
  return error == EAGAIN || error == EWOULDBLOCK;
}

// A signal that interrupts a call says nothing about the descriptor, and would leave the caller waiting for an edge
// that does not come.
template <typename Call>
ssize_t withoutInterruption(Call&& call) {
  for (;;) {
    ssize_t returned = call();
    if (returned >= 0 || errno != EINTR) return returned;
  }
}

struct Gathered {
  iovec pieces[MAX_WRITE_PIECES];
  size_t count = 0;
};

// The first pieces that are not empty, up to `limit` bytes.
Gathered gather(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces, size_t limit) {
  Gathered result;
  for (auto piece : pieces) {
    if (result.count == MAX_WRITE_PIECES || limit == 0) break;
    if (piece.size() == 0) continue;
    size_t size = kj::min(piece.size(), limit);
    // The kernel only reads; iovec has no const form.
    result.pieces[result.count++] = {const_cast<kj::byte*>(piece.begin()), size};
    limit -= size;
  }
  return result;
}

ssize_t writeSocket(int fd, Gathered& gathered) {
  msghdr message{};
  message.msg_iov = gathered.pieces;
  message.msg_iovlen = gathered.count;
  return withoutInterruption([&] { return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
}

ssize_t writeDevice(int fd, Gathered& gathered) {
  return withoutInterruption([&] { return writev(fd, gathered.pieces, static_cast<int>(gathered.count)); });
}

// The driver hands out what one of its buffers holds a call, however much there is; but it is asked again for every
// piece of a readv(2), as long as each was filled.
ssize_t readDevice(int fd, kj::ArrayPtr<kj::byte> buffer) {
  iovec pieces[limits::READ_BYTES / SERIAL_BUFFER_BYTES];
  size_t count = 0;
  while (buffer.size() > 0 && count < kj::size(pieces)) {
    size_t size = kj::min(buffer.size(), SERIAL_BUFFER_BYTES);
    pieces[count++] = {buffer.begin(), size};
    buffer = buffer.slice(size, buffer.size());
  }
  return withoutInterruption([&] { return readv(fd, pieces, static_cast<int>(count)); });
}

kj::AutoCloseFd duplicate(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return kj::AutoCloseFd(copy);
}

}  // namespace

PipeResult readResult(DescriptorKind kind, ssize_t returned, int error) {
  if (returned > 0) return {PipeState::OPEN, static_cast<size_t>(returned)};
  if (returned == 0) return kind == DescriptorKind::SERIAL_DEVICE ? PipeResult{PipeState::NOT_CONNECTED, 0} : END;
  return isNothingNow(error) ? NOTHING_NOW : END;
}

PipeResult writeResult(ssize_t returned, int error) {
  if (returned >= 0) return {PipeState::OPEN, static_cast<size_t>(returned)};
  return isNothingNow(error) ? NOTHING_NOW : END;
}

// Readiness ---------------------------------------------------------------------------------------------------------

kj::Promise<void> FdPipe::Side::wait() {
  KJ_IF_MAYBE (edge, watch) {
    // Rejected when the observer goes, or watches anew for a later call: either way trying is the answer.
    auto waiting = edge->then([] {}, [](kj::Exception&&) {});
    watch = nullptr;
    return waiting;
  }
  // There has been no attempt since the last wait.
  return kj::READY_NOW;
}

// The pipe ----------------------------------------------------------------------------------------------------------

FdPipe::Room::Room(kj::UnixEventPort& port, int original)
    : fd(duplicate(original)), observer(port, fd.get(), kj::UnixEventPort::FdObserver::OBSERVE_WRITE) {}

FdPipe::FdPipe(kj::UnixEventPort& port, DescriptorKind kind, kj::AutoCloseFd descriptor)
    : port(port), kind(kind), fd(kj::mv(descriptor)) {
  int flags;
  KJ_SYSCALL(flags = fcntl(fd, F_GETFL));
  KJ_SYSCALL(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
  observer.emplace(port, fd.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ);
}

// T30
PipeResult FdPipe::read(kj::ArrayPtr<kj::byte> buffer) {
  KJ_REQUIRE(buffer.size() > 0, "a read without a buffer cannot tell an end from nothing");
  if (closed) return END;
  ssize_t returned = kind == DescriptorKind::SERIAL_DEVICE ? readDevice(fd, buffer) : receiveBytes(fd, buffer);
  PipeResult result = readResult(kind, returned, errno);
  if (result.bytes > 0) {
    foundBytes();
  } else if (result.state != PipeState::ENDED) {
    readSide.arm(KJ_ASSERT_NONNULL(observer).whenBecomesReadable());
  }
  return result;
}

PipeResult FdPipe::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  if (closed) return END;
  bool isSocket = kind == DescriptorKind::SOCKET;
  Gathered gathered = gather(pieces, isSocket ? size_t(kj::maxValue) : MAX_SERIAL_WRITE_BYTES);
  if (gathered.count == 0) return NOTHING_NOW;
  ssize_t returned = isSocket ? writeSocket(fd, gathered) : writeDevice(fd, gathered);
  PipeResult result = writeResult(returned, errno);
  if (result.state == PipeState::OPEN && result.bytes == 0) {
    foundFull();
  } else {
    foundRoom();
  }
  return result;
}

void FdPipe::foundBytes() {
  auto now = port.getTimer().now();
  quickReads = now - lastRead < QUICK_READ ? quickReads + 1 : 0;
  lastRead = now;
}

bool FdPipe::isLively() const {
  return kind == DescriptorKind::SOCKET && quickReads >= LIVELY_READS;
}

void FdPipe::foundFull() {
  if (room == nullptr) room.emplace(port, fd);
  auto& watched = KJ_ASSERT_NONNULL(room);
  watched.writesSince = 0;
  writeSide.arm(watched.observer.whenBecomesWritable());
}

void FdPipe::foundRoom() {
  if (isLively() && room == nullptr) room.emplace(port, fd).writesSince = WRITES_UNWATCHED;
  KJ_IF_MAYBE (watched, room) {
    if (isLively() || ++watched->writesSince < WRITES_UNWATCHED) return;
    writeSide.disarm();
    room = nullptr;
  }
}

kj::Promise<void> FdPipe::whenReadable() {
  return readSide.wait();
}

kj::Promise<void> FdPipe::whenWritable() {
  return writeSide.wait();
}

void FdPipe::close() {
  if (closed) return;
  closed = true;
  readSide.disarm();
  writeSide.disarm();
  observer = nullptr;
  room = nullptr;
  if (kind == DescriptorKind::SOCKET) {
    // Not close() alone: another process may hold a duplicate, and the peer is to see the end now.
    shutdown(fd, SHUT_RDWR);
    fd = {};
  }
}

kj::Own<BytePipe> newSocketPipe(kj::UnixEventPort& port, kj::AutoCloseFd socket) {
  return kj::heap<FdPipe>(port, DescriptorKind::SOCKET, kj::mv(socket));
}

kj::Own<BytePipe> newSerialPipe(kj::UnixEventPort& port, kj::AutoCloseFd device) {
  return kj::heap<FdPipe>(port, DescriptorKind::SERIAL_DEVICE, kj::mv(device));
}

void limitSendBuffer(int socket, size_t bytes) {
  int value = static_cast<int>(kj::min(bytes, size_t(std::numeric_limits<int>::max()) / 2));
  KJ_SYSCALL(setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)));
}

}  // namespace postern
