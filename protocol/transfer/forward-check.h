#pragma once
// ForwardCheck: the order of a transfer's forward direction. Whoever takes forward messages from another process, be it
// of another machine or of the own one, has one and gives it every message before using it.
//
// Guarantees that after null was returned for a message: `totals` came first and once; a name is relative to path();
// depth stays within MAX_DEPTH and within what was announced; data, holes and sames of a file follow each other without
// gap or overlap and end within its size; nothing comes between a file that is not inlined and its end; a file that
// ends whole has been covered from 0 to its size; sames are whole chunks of a base that was told, and end within it; a
// hard link names components; entries, failures, tops and the sum of sizes stay within what was announced, with the
// slack of limits.h; nothing follows `done`.
//
// A stream's size and bytes (Totals::stream) are bounded by MAX_FILE_BYTES alone: who takes one has a quota.

#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/transfer/entry.h"

namespace postern::transfer {

class ForwardCheck {
 public:
  enum class Form : uint8_t {
    CHANNEL,  // between the machines: the bytes of every file are there
    // Between an opener and its mover: a file that is not inlined may go on as a descriptor. Its bytes may follow, and
    // need not; the next message then ends it.
    OPENER,
    LISTING,  // list and stat, everywhere: entries of any kind, and no content
  };
  explicit ForwardCheck(Form form = Form::CHANNEL) : form(form) {}

  // `contentBytes` as in parseForward(). After an error the check must not be used any more.
  kj::Maybe<FrameError> check(const Forward& message, size_t contentBytes);
  // What was answered to the file that came last and wants a base: without it no `same` is in order.
  void toldBase(uint64_t bytes) { baseBytes = bytes; }

  // Number of the entry that came last; counts from 0. There must be one.
  uint64_t entryNumber() const { return entries - 1; }
  uint64_t entriesSeen() const { return entries; }
  // Directories that were entered and not left, from the top.
  kj::ArrayPtr<const kj::String> path() const { return directories; }
  // Components with '/' between: path() and `name`; for people: of what is over MAX_PATH_BYTES the end alone.
  kj::String pathOf(kj::StringPtr name) const;
  bool inFile() const { return file != nullptr; }
  bool isDone() const { return done; }
  const Totals& announced() const { return totals; }

 private:
  struct File {
    uint64_t size;  // of a stream: the largest that it may become
    bool wantsBase;
    bool stream;
    uint64_t covered = 0;
  };

  Form form;
  bool begun = false;
  bool done = false;
  Totals totals;
  uint64_t entries = 0;
  uint64_t failures = 0;
  uint64_t bytes = 0;  // sizes of the files that came
  uint32_t tops = 0;
  kj::Vector<kj::String> directories;
  kj::Maybe<File> file;  // that is being sent
  kj::Maybe<uint64_t> baseBytes;

  uint64_t mostEntries() const { return totals.files + totals.directories + ANNOUNCED_SLACK_ENTRIES; }
  kj::Maybe<FrameError> begin(const Totals& announced);
  kj::Maybe<FrameError> checkEntry(const Entry& entry);
  kj::Maybe<FrameError> checkFile(const Entry& entry);
  kj::Maybe<FrameError> checkOutside(const Forward& message);
  kj::Maybe<FrameError> checkInside(File& current, const Forward& message, size_t contentBytes);
  kj::Maybe<FrameError> checkSame(const File& current, const Same& same) const;
  kj::Maybe<FrameError> checkEnd(const File& current);
  static kj::Maybe<FrameError> cover(File& current, uint64_t offset, uint64_t length);
};

}  // namespace postern::transfer
