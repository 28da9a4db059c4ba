#pragma once
// FdPipe: a BytePipe over one non-blocking descriptor. Guarantees, beside BytePipe's:
//  - no busy loop: waits are edge-triggered and armed in the very call that found nothing to do, so an edge between
//    that call and whenReadable() is not lost; a virtio-serial port without a peer, for which poll() says "readable"
//    for ever, wakes nobody;
//  - a descriptor that a peer attaches to its bytes (SCM_RIGHTS) never becomes ours: it is closed elsewhere
//    (transport/close-elsewhere.h), and so is the socket, in which some may lie unread;
//  - a peer that takes what we wrote wakes nobody: the kernel is asked to tell that there is room again only by a pipe
//    that has been full lately, or by a socket in a lively conversation;
//  - no SIGPIPE;
//  - the two directions end separately: what a peer sent before it closed can be read after a write gave ENDED.
// Lives on the loop of its event port. Owns the descriptor; destroying the pipe is close(), and frees the descriptor.

#include <kj/async-unix.h>
#include <kj/io.h>

#include "protocol/byte-pipe.h"
#include "transport/close-elsewhere.h"

namespace postern {

enum class DescriptorKind {
  SOCKET,         // connected stream socket: Unix or vsock. A read of 0 is the end
  SERIAL_DEVICE,  // virtio-serial port in the guest. A read of 0 says that nobody has the host's end open
};

// One write takes no more pieces than this; more are left for the next call.
constexpr size_t MAX_WRITE_PIECES = 16;
// What the virtio_console driver takes in one write; more would come back as a part in any case.
constexpr size_t MAX_SERIAL_WRITE_BYTES = size_t(32) << 10;
// And what each of its receive buffers holds.
constexpr size_t SERIAL_BUFFER_BYTES = size_t(4) << 10;

// What one read() or write() call of the kernel means: `returned` is its result and `error` errno if that is -1.
// Separate so that states that only a guest's kernel produces can be tested anywhere.
PipeResult readResult(DescriptorKind kind, ssize_t returned, int error);
PipeResult writeResult(ssize_t returned, int error);

// A pipe that was full is watched for room until so many writes in a row have found some.
constexpr unsigned WRITES_UNWATCHED = 256;

// A socket that so many times in a row had bytes within this time of the last ones is in a lively conversation, and is
// watched for room until it had to wait longer. The peer's read then wakes this end while the peer still works, and its
// answer finds the processor out of its sleep: a call between two idle processors of a virtual machine takes half the
// time (tests/bench, `ping`).
constexpr auto QUICK_READ = 1 * kj::MILLISECONDS;
constexpr unsigned LIVELY_READS = 16;

class FdPipe final : public BytePipe {
 public:
  // Makes the descriptor non-blocking. No other FdObserver may watch it. A pipe that is watched for room takes one
  // descriptor more.
  FdPipe(kj::UnixEventPort& port, DescriptorKind kind, kj::AutoCloseFd fd);
  ~FdPipe() noexcept(false) { close(); }
  KJ_DISALLOW_COPY(FdPipe);

  PipeResult read(kj::ArrayPtr<kj::byte> buffer) override;
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  // Beside BytePipe's contract: resolved, not rejected, by close(), by the pipe's destruction, and when a further
  // attempt meanwhile has found nothing to do.
  kj::Promise<void> whenReadable() override;
  kj::Promise<void> whenWritable() override;
  // Shuts a socket down and closes its descriptor at once. A serial device stays open until the pipe is destroyed.
  void close() override;

 private:
  // One direction's readiness: the observer's own promise from the call that found nothing to do until somebody waits.
  // Nothing between the two, since a promise of KJ that others fulfil costs half a kilobyte, an eighth of what a
  // half-open link may cost.
  class Side {
   public:
    // The kernel has just said "nothing now": from here on an edge counts.
    void arm(kj::Promise<void> edge) { watch = kj::mv(edge); }
    void disarm() { watch = nullptr; }
    kj::Promise<void> wait();

   private:
    kj::Maybe<kj::Promise<void>> watch;  // while armed
  };

  // Watches for room. Of a duplicate, since a descriptor is watched once, and for reading from the beginning.
  struct Room {
    kj::AutoCloseFd fd;
    kj::UnixEventPort::FdObserver observer;
    unsigned writesSince = 0;  // that found room
    Room(kj::UnixEventPort& port, int original);
  };

  kj::UnixEventPort& port;
  const DescriptorKind kind;
  bool closed = false;
  StrangersFd fd;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;
  kj::Maybe<Room> room;
  // After the observers: their watches must be gone before them.
  Side readSide;
  Side writeSide;

  kj::TimePoint lastRead = kj::origin<kj::TimePoint>();
  unsigned quickReads = 0;  // in a row

  bool isLively() const;
  void foundBytes();
  void foundFull();
  void foundRoom();
};

kj::Own<BytePipe> newSocketPipe(kj::UnixEventPort& port, kj::AutoCloseFd socket);
kj::Own<BytePipe> newSerialPipe(kj::UnixEventPort& port, kj::AutoCloseFd device);

// Bounds what a Unix socket's kernel buffer holds of ours, and with it how far a control message can be behind bulk
// bytes. The kernel doubles the number for its own bookkeeping and has a minimum of about 4.5 KiB.
void limitSendBuffer(int socket, size_t bytes);

}  // namespace postern
