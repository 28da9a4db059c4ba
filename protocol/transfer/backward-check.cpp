#include "protocol/transfer/backward-check.h"

namespace postern::transfer {

// T68
kj::Maybe<FrameError> BackwardCheck::check(const Backward& message) {
  if (over) return FrameError{"nothing follows refused or finished"};
  if (!ready) return begin(message);
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(base, Base) {
      if (basesDue == 0) return FrameError{"a base was asked for"};
      --basesDue;
      hashesLeft = base.bytes / CHUNK_BYTES + (base.bytes % CHUNK_BYTES > 0 ? 1 : 0);
      return nullptr;
    }
    KJ_CASE_ONEOF(hashes, Hashes) return checkHashes(hashes);
    KJ_CASE_ONEOF(failed, DestinationFailed) return checkFailed(failed);
    KJ_CASE_ONEOF(progress, Progress) return checkProgress(progress);
    KJ_CASE_ONEOF(summary, Summary) return checkSummary(summary);
    KJ_CASE_ONEOF_DEFAULT break;
  }
  return FrameError{"ready or refused comes once"};
}

kj::Maybe<FrameError> BackwardCheck::begin(const Backward& message) {
  if (message.is<Ready>()) {
    ready = true;
    return nullptr;
  }
  if (message.is<Refused>()) {
    over = true;
    return nullptr;
  }
  return FrameError{"ready or refused comes first"};
}

kj::Maybe<FrameError> BackwardCheck::checkHashes(const Hashes& hashes) {
  uint64_t count = hashes.hashes.size() / HASH_BYTES;
  if (count > hashesLeft) return FrameError{"a base has a hash a chunk"};
  hashesLeft -= count;
  return nullptr;
}

kj::Maybe<FrameError> BackwardCheck::checkFailed(const DestinationFailed& failed) {
  if (failed.entry >= entries) return FrameError{"what failed was sent"};
  if (++failures > entries * MAX_PROBLEMS_PER_ENTRY) return FrameError{"an entry has few problems"};
  return nullptr;
}

kj::Maybe<FrameError> BackwardCheck::checkProgress(const Progress& progress) {
  if (progress.entries > entries) return FrameError{"what is done was sent"};
  if (progress.entries < entriesDone) return FrameError{"what is done stays done"};
  entriesDone = progress.entries;
  return nullptr;
}

kj::Maybe<FrameError> BackwardCheck::checkSummary(const Summary& summary) {
  if (!done) return FrameError{"finished comes after done"};
  if (summary.files > entries || summary.directories > entries - summary.files || summary.unchanged > summary.files) {
    return FrameError{"no more is made than was sent"};
  }
  over = true;
  return nullptr;
}

}  // namespace postern::transfer
