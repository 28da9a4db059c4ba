#pragma once
// AuditLog: the one who writes the audit log (audit-line.h has the lines, audit-verify.h the proof). Guarantees:
//  - append() writes the whole line to the file before it returns, or nothing, and says so; a crash of this process
//  loses
//    no line that was appended, one of the machine none that flush() has confirmed;
//  - lines are on the disk SYNC_AFTER after they were appended, or sooner when SYNC_LINES wait. fdatasync runs in a
//  thread
//    of its own: a slow disk does not hold up the loop (append() writes into the page cache);
//  - each line carries the hash of the one before, over rotations and restarts;
//  - an older file is changed by nothing but renaming. One that is found damaged is kept and a new one begun.
//
// Files: PATH, PATH.1 (newer) to PATH.N (oldest), 0640. One writer: the file is locked (flock).
// Lives on one loop. Owned by posternd; destroying it waits for an fdatasync that runs, and confirms nothing: flush()
// first. The process ignores SIGXFSZ if it has a limit on file sizes.

#include <kj/async.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "host/audit/audit-line.h"
#include "host/audit/audit-sync.h"
#include "host/audit/audit-verify.h"

namespace postern::host {

enum class AuditError {
  DISK_FULL,  // or a quota, or a limit on file sizes
  READ_ONLY,
  IO,  // anything else; also: an fdatasync failed, and lines that were appended may be lost
};
kj::StringPtr describe(AuditError error);

class AuditLog final : private kj::TaskSet::ErrorHandler {
 public:
  struct Options {
    uint64_t fileBytes = uint64_t(16) << 20;  // a file is rotated before it would be larger
    unsigned files = 10;                      // that are kept, with the newest
    kj::Duration syncAfter = 100 * kj::MILLISECONDS;
    unsigned syncLines = 64;
  };

  // What open() found at the end of the log that was there.
  struct Found {
    bool torn = false;                // the last line was cut short; the next line records it
    kj::Maybe<AuditProblem> damaged;  // the newest file is not as it was written: it was rotated away
  };

  // The log at `path`, continued or new, or one line for a person. Its folder must be there. Reads the newest file.
  static kj::OneOf<kj::Own<AuditLog>, kj::String> open(kj::StringPtr path, kj::Timer& timer);
  static kj::OneOf<kj::Own<AuditLog>, kj::String> open(kj::StringPtr path, kj::Timer& timer, Options options);

  ~AuditLog() noexcept(false);
  KJ_DISALLOW_COPY(AuditLog);

  const Found& found() const { return atOpen; }

  // Writes the event. An event that could not be written is counted, and the next line that can be says how many.
  [[nodiscard]] kj::Maybe<AuditError> append(const AuditEvent& event);

  // When all that was appended before the call is on the disk. Rejected if the disk refuses.
  kj::Promise<void> flush();

  uint64_t lastSequence() const { return sequence; }
  uint64_t droppedEvents() const { return droppedTotal; }  // since open()
  kj::String head() const { return hexOf(previous); }      // hash of the last line

 private:
  struct Start;  // where the log continues
  struct Waiter {
    uint64_t sequence;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

 public:
  AuditLog(kj::String path, kj::Timer& timer, Options options, Start start);  // open()'s

 private:
  kj::Maybe<AuditError> write(const AuditEvent& event);
  kj::Maybe<AuditError> rotate();
  kj::Maybe<AuditError> writeWhole(kj::ArrayPtr<const char> line);
  void lineWritten();
  void startSync();
  void synced(uint64_t upTo, int error);
  void taskFailed(kj::Exception&& exception) override;

  const kj::String path;
  kj::Timer& timer;
  const Options options;
  Found atOpen;

  kj::AutoCloseFd file;
  uint64_t fileNumber;
  uint64_t fileSize = 0;  // whole lines; what lies behind is cut off before the next one
  uint64_t sequence = 0;
  LineHash previous{};
  kj::String torn;
  uint64_t dropped = 0;  // since the last line
  uint64_t droppedTotal = 0;

  kj::Vector<kj::AutoCloseFd> rotated;  // not yet synced
  uint64_t syncedSequence = 0;
  bool syncing = false;
  bool timerRuns = false;
  kj::Maybe<AuditError> syncError;  // told to the next append()
  kj::Vector<Waiter> waiters;
  kj::Own<AuditSync> sync;
  kj::TaskSet tasks;
};

}  // namespace postern::host
