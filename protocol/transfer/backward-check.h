#pragma once
// BackwardCheck: the order of a transfer's backward direction, for whoever takes it: `ready` or `refused` first and
// once; one `base` for each file that asked for one, in their order; hashes only after a base, and no more than its
// bytes have chunks; entries that were sent, and at most MAX_PROBLEMS_PER_ENTRY of each; nothing after `refused` or
// `finished`; `finished` only after `done` was sent.
//
// Messages cross: a base, or hashes, may come when their file has failed or ended here and others have been sent.
// concernsLast() tells.

#include "protocol/transfer/progress.h"

namespace postern::transfer {

class BackwardCheck {
 public:
  // What was sent, so that what comes can be judged.
  void sentEntry(bool wantsBase) {
    ++entries;
    lastWantsBase = wantsBase;
    if (wantsBase) ++basesDue;
  }
  void sentDone() { done = true; }

  // After an error the check must not be used any more.
  kj::Maybe<FrameError> check(const Backward& message);

  // Whether the base that came last, and the hashes behind it, are of the entry that was sent last.
  bool concernsLast() const { return lastWantsBase && basesDue == 0; }
  bool isReady() const { return ready; }
  bool isOver() const { return over; }

 private:
  bool ready = false;
  bool over = false;
  bool done = false;
  bool lastWantsBase = false;
  uint64_t entries = 0;
  uint64_t basesDue = 0;
  uint64_t hashesLeft = 0;  // chunks of the present base
  uint64_t failures = 0;
  uint64_t entriesDone = 0;

  kj::Maybe<FrameError> begin(const Backward& message);
  kj::Maybe<FrameError> checkHashes(const Hashes& hashes);
  kj::Maybe<FrameError> checkFailed(const DestinationFailed& failed);
  kj::Maybe<FrameError> checkProgress(const Progress& progress);
  kj::Maybe<FrameError> checkSummary(const Summary& summary);
};

}  // namespace postern::transfer
