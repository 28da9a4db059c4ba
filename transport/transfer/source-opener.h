#pragma once
// runSourceOpener(): reads trees for a transfer, with the rights of the process or thread that calls it, and says what
// is there to its mover over a socket. It blocks; it lives in a thread of the CLI (put) or in a process of its own in
// the guest (get, list, stat).
//
// Guarantees:
//  - no file is opened but relative to a directory handle, by one component, without following a symbolic link
//    (open-component.h), O_NONBLOCK | O_NOCTTY, and only regular files are read: a FIFO or a device is an entry, or a
//    problem, and never a wait
//  - the tree is counted first (totals), without a memory that grows with it but for names of hard-linked files, which
//    are bounded: above MAX_LINKED_BYTES later links are sent as files of their own
//  - a file whose size, mtime or ctime is not what it was when it was opened is a problem (`changed`), never a mixture
//  - an entry that cannot be read is a problem of that entry; the rest goes on
//  - a mover that goes, or breaks a rule, ends it.

#include <kj/function.h>
#include <kj/io.h>
#include <kj/vector.h>

#include "protocol/transfer/entry.h"
#include "protocol/transfer/path-scope.h"
#include "protocol/transfer/progress.h"

namespace postern::transfer {

class OwnerNames;

constexpr size_t MAX_LINKED_BYTES = size_t(8) << 20;

// What the caller named: a component in a directory that somebody with the right to do so has opened. A top that is ""
// is that directory itself, sent under the name `as`.
struct SourceTop {
  kj::AutoCloseFd folder;
  kj::String name;
  kj::String as;         // the entry's name at the other end
  kj::String shown;      // for people: as the caller wrote it
  kj::String scopePath;  // canonical path of the top, for the scope; empty where there is no scope
  bool follow = false;   // the top itself may be a symbolic link: it is followed (not what is below it)
  // A directory that the scope says nothing of, though it may of what is in it: it is entered all the same. A listing
  // leaves out what it holds and no rule allows.
  bool way = false;
};
// A stream in place of a tree: standard input. It is read to its end into one entry.
struct SourceStream {
  kj::AutoCloseFd stream;
  kj::String as;
};

struct SourceOptions {
  bool recursive = false;
  bool archive = false;
  bool verify = false;
  bool wantsBase = true;   // large files: only what differs
  bool listing = false;    // entries without content
  uint32_t listDepth = 0;  // listing: directories inside each other that are entered; 0: none (stat), 1: tops
  kj::Maybe<const PathScope&> scope;  // every path is decided by it; null: no bounds but the file system's
  OwnerNames* owners = nullptr;       // for a process that cannot ask the user database any more
};

// What the caller may want to show. Called from the opener's own thread.
class SourceListener {
 public:
  virtual void counted(const Totals&) {}
  virtual void sent(uint64_t /*bytes*/) {}                        // content that has left, in all
  virtual void progress(const Progress&) {}                       // what the destination has on its disk
  virtual void failed(kj::StringPtr /*path*/, const Problem&) {}  // of one entry, on either side; the path as shown
};

// What came of it: the destination's summary, with failures of both sides; or why there was none.
using OpenerEnd = kj::OneOf<Summary, Problem>;

OpenerEnd runSourceOpener(kj::AutoCloseFd mover, kj::Vector<SourceTop> tops, const SourceOptions& options,
                          SourceListener& listener);
OpenerEnd runSourceStream(kj::AutoCloseFd mover, SourceStream stream, const SourceOptions& options,
                          SourceListener& listener);

}  // namespace postern::transfer
