#pragma once
// ForwardCheck: the order of a transfer's forward direction. Whoever takes forward messages from another process, be it
// of another machine or of the own one, has one and gives it every message before using it.
//
// Guarantees that after null was returned for a message: `totals` came first and once; a name is relative to path();
// depth stays within MAX_DEPTH and within what was announced; data, holes and sames of a file are in ascending order,
// do not overlap and end within its size; nothing comes between a file that is not inlined and its end; a file that
// ends whole has been covered from 0 to its size; a hard link names components; entries and bytes stay within what was
// announced, with the slack of limits.h; nothing follows `done`.

#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/transfer/entry.h"

namespace postern::transfer {

class ForwardCheck {
 public:
  // `contentBytes` as in parseForward(). After an error the check must not be used any more.
  kj::Maybe<FrameError> check(const Forward& message, size_t contentBytes);

  // Number of the entry that came last; counts from 0.
  uint64_t entryNumber() const { return entries - 1; }
  uint64_t entriesSeen() const { return entries; }
  // Directories that were entered and not left, from the top.
  kj::ArrayPtr<const kj::String> path() const { return directories; }
  // Components with '/' between: path() and `name`; for people, bounded to MAX_PATH_BYTES.
  kj::String pathOf(kj::StringPtr name) const;
  bool inFile() const { return fileSize != nullptr; }
  bool isDone() const { return done; }
  const Totals& announced() const { return totals; }

 private:
  bool begun = false;
  bool done = false;
  Totals totals;
  uint64_t entries = 0;
  uint64_t bytes = 0;
  uint32_t tops = 0;
  kj::Vector<kj::String> directories;
  kj::Maybe<uint64_t> fileSize;  // of the file that is being sent
  uint64_t covered = 0;          // of it
  bool baseAsked = false;
};

}  // namespace postern::transfer
