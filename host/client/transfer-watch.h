#pragma once
// TransferWatch: what is known of a transfer while it runs. The opener's thread tells it, the program's loop reads it;
// every function may be called from any thread. Memory is bounded: MAX_PENDING_FAILURES, and entries of
// MAX_PENDING_BYTES, that nobody has taken yet; above the first failures are counted only, above the second the
// opener's thread waits.
//
// It also holds the handle by which the opener's socket is shut down: that ends whatever the opener waits for, and,
// when the opener has ended, tells its mover.

#include <kj/io.h>
#include <kj/mutex.h>
#include <kj/refcount.h>

#include "transport/transfer/destination-opener.h"
#include "transport/transfer/source-opener.h"

namespace postern::client {

// An entry that was not carried out. `path` as whoever found it calls it, any bytes.
struct EntryProblem {
  kj::String path;
  transfer::Problem problem;
};
// An entry of a list; `path` begins with the top's name. Of attributes it has the names.
struct ListedEntry {
  kj::String path;
  transfer::Entry entry;
};

struct TransferProgress {
  bool counted = false;  // totals are known
  transfer::Totals totals;
  uint64_t sentBytes = 0;    // content that has left (put)
  uint64_t doneEntries = 0;  // whatever came of them
  uint64_t doneBytes = 0;    // on the destination's disk
  uint64_t failures = 0;
  kj::String last;  // the entry that was made last (get); empty: none yet, or not known
};

class TransferWatch final : public kj::AtomicRefcounted,
                            public transfer::SourceListener,
                            public transfer::DestinationListener,
                            public transfer::ListingListener {
 public:
  static constexpr size_t MAX_PENDING_FAILURES = 500;
  static constexpr size_t MAX_PENDING_BYTES = size_t(1) << 20;

  // `socket`: a copy of the opener's end.
  explicit TransferWatch(kj::AutoCloseFd socket) : socket(kj::mv(socket)) {}

  TransferProgress progress() const;
  kj::Vector<EntryProblem> takeFailures() const;
  kj::Vector<ListedEntry> takeEntries() const;
  // What the opener's thread found in the end; null: it runs still. Once.
  kj::Maybe<transfer::OpenerEnd> takeEnd() const;
  bool hasEnded() const;

  // Nobody will take anything any more: the opener's thread waits for nothing.
  void abandon() const;
  void shutDown() const;
  // By the opener's thread, last of all.
  void end(transfer::OpenerEnd end) const;

  // SourceListener, DestinationListener, ListingListener
  void counted(const transfer::Totals& totals) override;
  void announced(const transfer::Totals& totals) override { counted(totals); }
  void sent(uint64_t bytes) override;
  void progress(const transfer::Progress& progress) override;
  void failed(kj::StringPtr path, const transfer::Problem& problem) override;
  void made(kj::StringPtr path, const transfer::Entry& entry) override;
  void entry(kj::StringPtr path, const transfer::Entry& entry) override;

 private:
  struct State {
    TransferProgress progress;
    kj::Vector<EntryProblem> failures;
    kj::Vector<ListedEntry> entries;
    size_t entryBytes = 0;
    kj::Maybe<transfer::OpenerEnd> end;
    bool ended = false;
    bool abandoned = false;
  };
  const kj::AutoCloseFd socket;
  kj::MutexGuarded<State> state;
};

}  // namespace postern::client
