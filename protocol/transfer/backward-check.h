#pragma once
// BackwardCheck: the order of a transfer's backward direction, for whoever takes it: `ready` or `refused` first and
// once; `base` once for each file that asked for one, and only while that file is the last that was sent; hashes only
// after a base, and no more than its bytes have chunks; entries that were sent; nothing after `refused` or `finished`;
// `finished` only after `done` was sent.

#include "protocol/transfer/progress.h"

namespace postern::transfer {

class BackwardCheck {
 public:
  // What was sent, so that what comes can be judged.
  void sentEntry(bool wantsBase) {
    ++entries;
    awaitsBase = wantsBase;
    hashesLeft = 0;
  }
  void sentDone() { done = true; }

  kj::Maybe<FrameError> check(const Backward& message);

  bool isReady() const { return ready; }
  bool isOver() const { return over; }

 private:
  bool ready = false;
  bool over = false;
  bool done = false;
  bool awaitsBase = false;
  uint64_t entries = 0;
  uint64_t hashesLeft = 0;  // chunks of the present base
};

}  // namespace postern::transfer
