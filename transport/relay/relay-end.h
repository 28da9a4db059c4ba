#pragma once
// RelayEnd: one end of a channel, as a relay has it in its hand: a local socket, or the way to another session process.
// Readiness style: an attempt says what came of it, and a wait may be spurious.
//
// Guarantees: reads nothing ahead and holds no bytes; each direction ends by itself (FINISHED, finish()), or both are
// reset; a reset is told to the other side as such, as far as the kind of socket can tell it. Destroying an end resets
// it unless both directions have ended. No wait is left hanging when the end is reset. One loop.

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/memory.h>

#include "protocol/bulk-channel.h"

namespace postern {

class RelayEnd {
 public:
  enum class State : uint8_t {
    OPEN,      // `bytes` of them, or nothing now
    FINISHED,  // read: the other side sends no more, and this is said again, until it resets
    RESET,
  };
  struct Result {
    State state;
    size_t bytes;
  };

  virtual ~RelayEnd() noexcept(false) {}

  // Not empty.
  virtual Result read(kj::ArrayPtr<kj::byte> space) = 0;
  // Until an attempt to read is worth while; behind FINISHED, until there may have been a reset.
  virtual kj::Promise<void> whenReadable() = 0;
  // Not empty, and not behind finish(). Takes the beginning of it, or all.
  virtual Result write(kj::ArrayPtr<const kj::byte> bytes) = 0;
  // Behind finish(): until it has been told, which is when the end may be destroyed without a reset.
  virtual kj::Promise<void> whenWritable() = 0;
  // Sends no more, behind what was written. Idempotent.
  virtual void finish() = 0;
  // Both directions, now. A TCP peer sees RST, a Unix peer that writes EPIPE. Idempotent.
  virtual void reset() = 0;
  // Until the other side has reset, or this one: at once, also while nobody reads, and not spurious. One waiter.
  virtual kj::Promise<void> whenReset() = 0;
};

// A connected stream socket, TCP or Unix, of a program of this machine. SIGPIPE is never raised. The descriptor's
// flags, which a program that handed it over may share, are left alone.
//
// A duplicate in another process delays the RST of a reset until it is closed, too. (A shutdown would tell a TCP peer
// of an orderly end, behind bytes that are not all: what reset() must not do.) A Unix socket whose peer has closed it
// is FINISHED behind all that the peer had said. If the peer left bytes unread, or once it is written to, nothing more
// is taken, and it is RESET two seconds behind that end.
kj::Own<RelayEnd> newSocketEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket);

// Whether it is what newSocketEnd() takes. For a descriptor that somebody else has handed over.
bool isStreamSocket(int fd);

// Resets a socket of another process's newSocketEnd() or newHopEnd() by a duplicate of it: that end is RESET at once,
// and what is at the other end of the socket sees what it does by reset(). For who may call connect(2).
void cutSocket(int duplicate);

// One end of a SOCK_SEQPACKET pair between the session processes of two VMs. Each packet is one byte that says what it
// is, and what it carries:
//   0  bytes: 1 to MAX_BULK_DATA_BYTES      1  finished      2  reset
// Anything else, and an end without 1 or 2 before it, is a reset: the other process has gone.
kj::Own<RelayEnd> newHopEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket);

}  // namespace postern
