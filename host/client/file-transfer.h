#pragma once
// FileTransfer: one put, get or list between this program's files and a VM's, from its start to its end.
//
// The program opens what it has a right to, and keeps that right to itself: the files are read and made by an *opener*
// (transport/transfer) in a thread that the transfer starts, with this process's rights. The VM's session process moves
// the bytes; it gets descriptors of single files and no way to open any.
//
//   FileOrder order{FileCall::PUT, kj::str("/srv/www")};
//   auto vm = ...client.openVm("web1", {policyName(order.call)}, order.path)...;
//   auto transfer = FileTransfer::put(*vm, order, kj::mv(tops));
//   auto outcome = transfer->whenOver().wait(waitScope);  // Summary, Problem or Failure
//
// A summary with `failures` is of a transfer that went on past entries that could not be carried out: takeFailures().
//
// Lives on the loop of its VmClient, which outlives it. progress(), takeFailures() and takeEntries() may be called from
// any thread. Of one FileTransfer one whenOver() is asked for. Ending it early: cancel(), or destroy it. Then the
// session is told, the socket is shut down, and the opener undoes what has no name yet and ends; the destructor waits
// for that. It takes as long as the disk takes for what it is at; who cannot wait calls release() first.

#include <kj/io.h>
#include <kj/thread.h>

#include "host/client/control-client.h"
#include "host/client/file-order.h"
#include "host/client/transfer-watch.h"

namespace postern::client {

// What came of it. Summary: it was carried out, but for its `failures`. Problem: it was not, as one of the two openers
// or movers says. Failure: as posternd, the session or a policy says, or the session has gone.
using FileOutcome = kj::OneOf<transfer::Summary, transfer::Problem, Failure>;

class FileTransfer {
 public:
  // `tops` as for runSourceOpener(); their scope paths are not looked at.
  static kj::Own<FileTransfer> put(VmClient& vm, const FileOrder& order, kj::Vector<transfer::SourceTop> tops);
  // Everything that `stream` gives, to its end, becomes the file that the order's path is.
  static kj::Own<FileTransfer> putStream(VmClient& vm, const FileOrder& order, transfer::SourceStream stream);
  // What the order's path is becomes `name` in `folder`, whatever the guest calls it.
  static kj::Own<FileTransfer> get(VmClient& vm, const FileOrder& order, kj::AutoCloseFd folder, kj::StringPtr name);
  // The bytes of the file that the order's path is.
  static kj::Own<FileTransfer> getStream(VmClient& vm, const FileOrder& order, kj::AutoCloseFd stream);
  // list, stat: entries come by takeEntries(), and the opener waits when nobody takes them.
  static kj::Own<FileTransfer> list(VmClient& vm, const FileOrder& order);

  // What one of the above makes: `opener` runs in the thread, with its end of the socket.
  using Opener = kj::Function<transfer::OpenerEnd(kj::AutoCloseFd mover, TransferWatch& watch)>;
  FileTransfer(VmClient& vm, const FileOrder& order, Opener opener);
  ~FileTransfer() noexcept(false);
  KJ_DISALLOW_COPY(FileTransfer);

  kj::Promise<FileOutcome> whenOver();
  // Ends it; resolves when the opener has ended. Also after whenOver() was dropped.
  kj::Promise<void> cancel();
  // Lets go of the opener's thread: it ends when its disk lets it. The process must not count on anything of it.
  void release();

  TransferProgress progress() const { return watch->progress(); }
  // Those that came since the last time.
  kj::Vector<EntryProblem> takeFailures() const { return watch->takeFailures(); }
  kj::Vector<ListedEntry> takeEntries() const { return watch->takeEntries(); }

 private:
  struct Ended {
    FileOutcome answer;
    bool openerWasFirst;
  };
  const FileCall call;
  kj::Own<TransferWatch> watch;
  kj::ForkedPromise<void> openerEnd = nullptr;
  kj::Maybe<kj::Promise<Ended>> answer;
  kj::Maybe<kj::Own<kj::Thread>> thread;

  FileOutcome outcomeOf(Ended ended);
};

// mkdir and remove: null if it was done.
kj::Promise<kj::Maybe<kj::OneOf<transfer::Problem, Failure>>> carryOut(VmClient& vm, const FileOrder& order);

}  // namespace postern::client
