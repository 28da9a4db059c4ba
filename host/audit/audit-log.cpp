#include "host/audit/audit-log.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/audit/locked-file.h"

namespace postern::host {

namespace {

AuditError errorOf(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return AuditError::DISK_FULL;
    case EROFS:
    case EACCES:
    case EPERM:
      return AuditError::READ_ONLY;
    default:
      return AuditError::IO;
  }
}

}  // namespace

kj::StringPtr describe(AuditError error) {
  switch (error) {
    case AuditError::DISK_FULL:
      return "the audit log's disk is full; make room";
    case AuditError::READ_ONLY:
      return "the audit log cannot be written: read-only, or not permitted";
    case AuditError::IO:
      return "the audit log's disk fails";
    case AuditError::SYNC_FAILED:
      return "the audit log's disk did not confirm earlier lines; they may be lost";
  }
  return "unknown";
}

AuditLog::AuditLog(kj::StringPtr path, kj::Timer& timer, kj::UnixEventPort& port, Options options, Start start)
    : path(kj::str(path)),
      timer(timer),
      options(options),
      atOpen(kj::mv(start.found)),
      file(kj::mv(start.file)),
      fileNumber(start.fileNumber),
      fileSize(start.soundBytes),
      hasExcess(atOpen.torn),
      sequence(start.sequence),
      previous(start.previous),
      torn(kj::mv(start.torn)),
      syncedSequence(start.sequence),
      sync(port),
      tasks(*this) {
  if (start.isNew) syncFolder();
}

AuditLog::~AuditLog() noexcept(false) {}

kj::Maybe<AuditError> AuditLog::append(const AuditEvent& event) {
  auto error = tryAppend(event);
  lastError = error;
  failedTotal += error != nullptr;
  return error;
}

kj::Maybe<AuditError> AuditLog::tryAppend(const AuditEvent& event) {
  auto error = write(event);
  if (error != nullptr) {
    ++dropped;
    ++droppedTotal;
    return error;
  }
  lineWritten();
  if (!syncFailed) return nullptr;
  syncFailed = false;
  return AuditError::SYNC_FAILED;
}

kj::Promise<void> AuditLog::flush() {
  if (syncedSequence == sequence && !syncing && unsynced.empty()) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters.add(Waiter{sequence, kj::mv(paf.fulfiller)});
  startSync();
  return kj::mv(paf.promise);
}

kj::Maybe<AuditError> AuditLog::write(const AuditEvent& event) {
  LinePlace place;
  place.sequence = sequence + 1;
  place.previous = previous;
  place.dropped = dropped;
  place.torn = torn;
  if (fileSize == 0) place.file = fileNumber;
  auto line = formatLine(event, place);
  if (fileSize > 0 && fileSize + line.size() > options.fileBytes && rotate() == 0) {
    place.file = fileNumber;
    line = formatLine(event, place);
  }  // a file that cannot be rotated grows: better than losing events
  KJ_IF_MAYBE (error, writeWhole(line)) return *error;
  fileSize += line.size();
  ++sequence;
  previous = hashLine(line.slice(0, line.size() - 1));
  torn = kj::String();
  dropped = 0;
  return nullptr;
}

// The whole line or nothing.
kj::Maybe<AuditError> AuditLog::writeWhole(kj::ArrayPtr<const char> line) {
  KJ_IF_MAYBE (error, cutExcess()) return *error;
  while (line.size() > 0) {
    ssize_t n = ::write(file, line.begin(), line.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      hasExcess = true;
      (void)cutExcess();  // now, so that nobody reads half a line; else before the next line
      return errorOf(error);
    }
    line = line.slice(size_t(n), line.size());
  }
  return nullptr;
}

kj::Maybe<AuditError> AuditLog::cutExcess() {
  if (!hasExcess) return nullptr;
  if (ftruncate(file, off_t(fileSize)) != 0) return errorOf(errno);
  hasExcess = false;
  return nullptr;
}

// The new file is made first: when that fails, or a name cannot be changed, the log goes on in the old one. 0 or errno.
int AuditLog::rotate() {
  KJ_IF_MAYBE (error, cutExcess()) {
    (void)error;
    return EIO;
  }
  auto fresh = kj::str(path, ".new");
  if (unlink(fresh.cStr()) != 0 && errno != ENOENT) return errno;
  auto opened = openLocked(fresh, LockedFileMode::CREATE);
  if (opened.error != 0) return opened.error;
  auto aged = [&](unsigned age) { return age == 0 ? kj::str(path) : kj::str(path, ".", age); };
  for (unsigned age = options.files - 1; age > 0; --age) {
    if (rename(aged(age - 1).cStr(), aged(age).cStr()) == 0 || errno == ENOENT) continue;
    int error = errno;
    unlink(fresh.cStr());
    return error;
  }
  if (rename(fresh.cStr(), path.cStr()) != 0) return errno;  // the next start finds the log at path.1
  unsynced.add(kj::mv(file));
  file = kj::mv(opened.file);
  ++fileNumber;
  fileSize = 0;
  syncFolder();
  startSync();
  return 0;
}

// New names are on the disk when their folder is.
void AuditLog::syncFolder() {
  size_t slash = 0;
  KJ_IF_MAYBE (at, path.findLast('/')) slash = *at;
  auto folder = slash == 0 ? kj::str(path.startsWith("/") ? "/" : ".") : kj::heapString(path.slice(0, slash));
  int fd = ::open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) unsynced.add(kj::AutoCloseFd(fd));
}

void AuditLog::lineWritten() {
  if (sequence - syncedSequence >= options.syncLines) {
    startSync();
  } else {
    syncLater();
  }
}

void AuditLog::syncLater() {
  if (timerRuns || syncing) return;
  timerRuns = true;
  tasks.add(timer.afterDelay(options.syncAfter).then([this] {
    timerRuns = false;
    startSync();
  }));
}

void AuditLog::startSync() {
  if (syncing) return;  // synced() looks again
  syncing = true;
  auto upTo = sequence;
  tasks.add(sync.run(kj::mv(unsynced), file).then([this, upTo](int error) { synced(upTo, error); }));
  unsynced = kj::Vector<kj::AutoCloseFd>();
}

void AuditLog::synced(uint64_t upTo, int error) {
  syncing = false;
  syncedSequence = upTo;  // failed or not: the kernel would not try those pages again
  if (error != 0) syncFailed = true;
  kj::Vector<Waiter> later;
  for (auto& waiter : waiters) {
    if (waiter.sequence > upTo) {
      later.add(kj::mv(waiter));
    } else if (error == 0) {
      waiter.fulfiller->fulfill();
    } else {
      waiter.fulfiller->reject(KJ_EXCEPTION(FAILED, "the audit log is not on the disk", path, strerror(error)));
    }
  }
  waiters = kj::mv(later);
  if (!waiters.empty() || !unsynced.empty() || sequence - syncedSequence >= options.syncLines) {
    startSync();
  } else if (sequence > syncedSequence) {
    syncLater();
  }
}

void AuditLog::taskFailed(kj::Exception&& exception) {
  // Neither the timer nor the sync fails but by the loop's own fault; whoever waits must not wait for ever.
  syncing = false;
  syncFailed = true;
  auto failed = kj::mv(waiters);
  waiters = kj::Vector<Waiter>();
  for (auto& waiter : failed) waiter.fulfiller->reject(kj::cp(exception));
}

}  // namespace postern::host
