#pragma once
// Movers: the two programs between an opener's socket and a bulk channel. They open nothing: they carry frames from one
// to the other, each one checked, and the bytes of larger files between descriptors that the opener passes and the
// channel. One loop, on which nothing blocks: files are read, hashed, written and synced by a thread of the transfer's
// own (file-worker.h), several blocks ahead, so that disk, cipher and link work at the same time, and a disk that
// stalls stalls this transfer alone.
//
// The peer's frames and the opener's frames are both untrusted (ForwardCheck, BackwardCheck): what is out of order ends
// the transfer with Problem::PROTOCOL, the channel is reset and the opener's socket closed. Dropping the mover does the
// same, whatever its thread is doing. Memory is bounded by the channel's credit and READ_AHEAD_BYTES.
//
// There is no deadline on a disk, nor on a peer that gives no credit: a transfer may rightly stand still for as long as
// either does. It costs its own buffers meanwhile, and ends with the session, the opener or the mover.

#include <kj/async-unix.h>
#include <kj/io.h>

#include "protocol/bulk-channel.h"
#include "protocol/transfer/entry.h"
#include "protocol/transfer/progress.h"

namespace postern::transfer {

constexpr size_t READ_AHEAD_BYTES = size_t(1) << 20;

// What the mover's owner has to say, on its loop.
class MoverGuard {
 public:
  // Before an entry goes on in either direction; `path` is its components from the top with '/' between. A problem ends
  // the transfer: nothing of the entry travels.
  virtual kj::Maybe<Problem> admit(kj::StringPtr /*path*/, const Entry&) { return nullptr; }
  // The destination said where the tops go.
  virtual void ready(bool /*into*/) {}
  // Before so many bytes of content are sent, or after they were received, and before more are.
  virtual kj::Promise<void> pace(size_t /*bytes*/) { return kj::READY_NOW; }
  // An entry is done, or its problem was told. For the audit; `hash` is there when it was verified. A destination
  // writes behind: an entry counts as done when it has finished, or when many others have come behind it
  // (entry-ledger.h), and may then still be told once more with a problem.
  virtual void settled(kj::StringPtr /*path*/, kj::Maybe<const Problem&>,
                       kj::Maybe<kj::ArrayPtr<const kj::byte>> /*hash*/) {}
};

struct MoverOptions {
  bool listing = false;  // list and stat: entries of any kind, and no content
  bool verify = false;
  schema::FileOrder::Sparse sparse = schema::FileOrder::Sparse::AUTO;
};

using MoverEnd = kj::OneOf<Summary, Problem>;

class Mover {
 public:
  virtual ~Mover() noexcept(false) {}
  // Once. Resolves when the transfer is over, whatever came of it; the channel and the socket are closed then. Does not
  // throw for what peer or opener do.
  virtual kj::Promise<MoverEnd> run() = 0;
  virtual uint64_t contentBytes() const = 0;  // moved so far
};

// `port`, `guard` outlive the mover. `opener` is a SOCK_SEQPACKET socket, `channel` one of a session of the same loop.
kj::Own<Mover> newSourceMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                              const MoverOptions& options, MoverGuard& guard);
kj::Own<Mover> newDestinationMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                                   const MoverOptions& options, MoverGuard& guard);

}  // namespace postern::transfer
