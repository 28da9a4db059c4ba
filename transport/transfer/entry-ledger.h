#pragma once
// EntryLedger: entries of which it is not yet known what came of them, for MoverGuard::settled(). Bounded: an entry is
// taken as done when LEDGER_ENTRIES others have come behind it, which is several times as many as a destination lets
// wait for its disk; and all are, when the destination says that it has finished.

#include <map>

#include "transport/transfer/mover.h"

namespace postern::transfer {

constexpr size_t LEDGER_ENTRIES = 4 * GROUP_FILES;
constexpr size_t LEDGER_BYTES = size_t(256) << 10;  // of paths

class EntryLedger {
 public:
  explicit EntryLedger(MoverGuard& guard) : guard(guard) {}
  // Whoever drops a transfer has the entries told that nobody knows the outcome of.
  ~EntryLedger() noexcept(false) { brokenOff(problem(ProblemKind::FAILED, kj::str("the transfer was given up"))); }
  KJ_DISALLOW_COPY(EntryLedger);

  void add(uint64_t entry, kj::String path);
  // It was verified.
  void verified(uint64_t entry, kj::ArrayPtr<const kj::byte> hash);
  // `path` for an entry that is settled already: then it is told once more, with the problem.
  void failed(uint64_t entry, kj::StringPtr path, const Problem& problem);
  // Of an entry that has no number, since it could not be read.
  void failed(kj::StringPtr path, const Problem& problem) { guard.settled(path, problem, nullptr); }

  // The transfer is over: all others are done; or what came of them is not known, for this reason.
  void finished();
  void brokenOff(const Problem& problem);

 private:
  struct Open {
    kj::String path;
    kj::Maybe<kj::Array<kj::byte>> hash;
  };

  MoverGuard& guard;
  std::map<uint64_t, Open> open;
  size_t pathBytes = 0;

  void settleFirst(kj::Maybe<const Problem&> problem);
};

}  // namespace postern::transfer
