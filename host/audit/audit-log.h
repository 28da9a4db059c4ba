#pragma once
// AuditLog: the one who writes the audit log (audit-line.h has the lines, audit-verify.h the proof). Guarantees:
//  - append() writes the whole line to the file before it returns, or nothing, and says so; a crash of this process
//  loses
//    no line that was appended, one of the machine none that flush() has confirmed;
//  - lines are on the disk SYNC_AFTER after they were appended, or sooner when SYNC_LINES wait. fdatasync runs in a
//  thread
//    of its own: a slow disk does not hold up the loop (append() writes into the page cache);
//  - each line carries the hash of the one before, over rotations and restarts;
//  - a file that cannot be rotated grows, rather than events being lost;
//  - an older file is changed by nothing but renaming. One that is found damaged is kept and a new one begun.
//
// Files: PATH, PATH.1 (newer) to PATH.N (oldest), 0640. One writer: the file is locked (flock).
// Lives on one loop. Owned by posternd; destroying it waits for an fdatasync that runs, and confirms nothing: flush()
// first. The process ignores SIGXFSZ if it has a limit on file sizes.

#include <kj/async-unix.h>
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
  IO,           // anything else
  SYNC_FAILED,  // this event is written; an earlier fdatasync failed, so lines from before may not be on the disk
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
  // Both of `timer` and `port` are the loop's, and outlive this.
  static kj::OneOf<kj::Own<AuditLog>, kj::String> open(kj::StringPtr path, kj::Timer& timer, kj::UnixEventPort& port,
                                                       Options options);
  static kj::OneOf<kj::Own<AuditLog>, kj::String> open(kj::StringPtr path, kj::Timer& timer, kj::UnixEventPort& port) {
    return open(path, timer, port, Options());
  }

  ~AuditLog() noexcept(false);
  KJ_DISALLOW_COPY(AuditLog);

  const Found& found() const { return atOpen; }

  // Writes the event. An event that could not be written is counted, and the next line that can be says how many.
  [[nodiscard]] kj::Maybe<AuditError> append(const AuditEvent& event);

  // When all that was appended before the call is on the disk. Rejected if the disk refuses.
  kj::Promise<void> flush();

  uint64_t lastSequence() const { return sequence; }
  uint64_t confirmedSequence() const {
    return syncedSequence;
  }                                                            // up to which the disk has been asked to keep the lines
  uint64_t droppedEvents() const { return droppedTotal; }      // since open()
  uint64_t failures() const { return failedTotal; }            // answers of append() that were an error, since open()
  kj::Maybe<AuditError> trouble() const { return lastError; }  // that the last one was
  uint64_t fileBytes() const { return fileSize; }              // of the newest file
  kj::String head() const { return hexOf(previous); }          // hash of the last line

 private:
  struct Start {  // where the log continues
    kj::AutoCloseFd file;
    uint64_t fileNumber = 1;
    uint64_t soundBytes = 0;
    uint64_t sequence = 0;
    LineHash previous{};
    kj::String torn;
    Found found;
    bool isNew = false;
  };
  struct Waiter {
    uint64_t sequence;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

 public:
  AuditLog(kj::StringPtr path, kj::Timer& timer, kj::UnixEventPort& port, Options options, Start start);  // open()'s

 private:
  static kj::OneOf<Start, kj::String> findEnd(kj::StringPtr path);
  kj::Maybe<AuditError> tryAppend(const AuditEvent& event);
  kj::Maybe<AuditError> write(const AuditEvent& event);
  kj::Maybe<AuditError> writeWhole(kj::ArrayPtr<const char> line);
  kj::Maybe<AuditError> cutExcess();
  int rotate();
  void syncFolder();
  void lineWritten();
  void startSync();
  void synced(uint64_t upTo, int error);
  void syncLater();
  void taskFailed(kj::Exception&& exception) override;

  const kj::String path;
  kj::Timer& timer;
  const Options options;
  const Found atOpen;

  kj::AutoCloseFd file;
  uint64_t fileNumber;
  uint64_t fileSize;     // of whole lines
  bool hasExcess;        // behind them lies part of one, which is cut off before the next
  uint64_t sequence;     // of the last line
  LineHash previous;     // its hash
  kj::String torn;       // for the next line
  uint64_t dropped = 0;  // since the last line
  uint64_t droppedTotal = 0;
  uint64_t failedTotal = 0;
  kj::Maybe<AuditError> lastError;

  kj::Vector<kj::AutoCloseFd> unsynced;  // rotated files and the folder
  uint64_t syncedSequence;
  bool syncing = false;
  bool timerRuns = false;
  bool syncFailed = false;  // not yet told
  kj::Vector<Waiter> waiters;
  AuditSync sync;
  kj::TaskSet tasks;
};

}  // namespace postern::host
