#include "host/audit/audit-log.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/audit/chain-check.h"

namespace postern::host {

namespace {

using Kind = AuditProblem::Kind;

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

// A locked file to append to, or an errno. EWOULDBLOCK: somebody else has it.
struct Opened {
  kj::AutoCloseFd file;
  int error = 0;
};
Opened openLocked(kj::StringPtr path, int more) {
  int fd = open(path.cStr(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | more, 0640);
  if (fd < 0) return {kj::AutoCloseFd(), errno};
  kj::AutoCloseFd file(fd);
  struct stat info;
  if (fstat(file, &info) != 0) return {kj::AutoCloseFd(), errno};
  if (!S_ISREG(info.st_mode)) return {kj::AutoCloseFd(), EINVAL};
  if (flock(file, LOCK_EX | LOCK_NB) != 0) return {kj::AutoCloseFd(), errno};
  if ((more & O_CREAT) != 0 && fchmod(file, 0640) != 0) return {kj::AutoCloseFd(), errno};
  return {kj::mv(file), 0};
}

kj::StringPtr adviceFor(int error) {
  switch (error) {
    case EWOULDBLOCK:
      return "is in use by another process; is posternd running already?";
    case ENOENT:
      return "its folder is missing; create it, owned by posternd's user";
    case ELOOP:
      return "is a symbolic link, which is refused";
    case EINVAL:
      return "is not a file";
    default:
      return strerror(error);
  }
}

// Where a damaged file ends: the highest number in it and the hash of its last line, whatever that is.
void skipToEnd(kj::StringPtr path, ChainCheck& chain) {
  auto opened = LineReader::open(path);
  KJ_IF_MAYBE (reader, opened) {
    for (;;) {
      auto next = reader->next();
      KJ_IF_MAYBE (line, next) {
        chain.previous = hashLine(line->text);
        KJ_IF_MAYBE (parsed, parseLine(line->text)) {
          chain.sequence = kj::max(chain.sequence, parsed->sequence);
          KJ_IF_MAYBE (number, parsed->file) chain.file = kj::max(chain.file, *number);
        }
      } else {
        return;
      }
    }
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

kj::OneOf<kj::Own<AuditLog>, kj::String> AuditLog::open(kj::StringPtr path, kj::Timer& timer, kj::UnixEventPort& port,
                                                        Options options) {
  KJ_REQUIRE(options.files >= 2 && options.syncLines > 0);
  auto end = findEnd(path);
  if (end.is<kj::String>()) return kj::mv(end.get<kj::String>());
  auto log = kj::heap<AuditLog>(path, timer, port, options, kj::mv(end.get<Start>()));
  if (log->atOpen.damaged != nullptr) {
    int error = log->rotate();
    if (error != 0) return kj::str(path, ": is damaged and cannot be put aside: ", strerror(error));
  }
  return kj::mv(log);
}

kj::OneOf<AuditLog::Start, kj::String> AuditLog::findEnd(kj::StringPtr path) {
  Start start;
  auto opened = openLocked(path, 0);
  if (opened.error == ENOENT) {
    start.isNew = true;
    opened = openLocked(path, O_CREAT | O_EXCL);
  }
  if (opened.error != 0) return kj::str(path, ": ", adviceFor(opened.error));
  start.file = kj::mv(opened.file);

  // The newest file, and the one before it where the newest has no whole line to continue from.
  ChainCheck chain;
  auto found = chain.readFile(path);
  if (chain.lines == 0) {
    auto older = kj::str(path, ".1");
    ChainCheck both;
    if (access(older.cStr(), F_OK) == 0 && both.readFile(older) != nullptr) skipToEnd(older, both);
    found = both.readFile(path);
    chain = kj::mv(both);
  }
  KJ_IF_MAYBE (problem, found) {
    if (problem->kind == Kind::UNREADABLE) return kj::mv(problem->text);
    if (problem->kind == Kind::UNFINISHED) {
      start.found.torn = true;
      start.torn = kj::mv(chain.tail);
    } else {
      skipToEnd(path, chain);
      start.found.damaged = kj::mv(*problem);
    }
  }
  start.soundBytes = chain.soundBytes;
  start.fileNumber = chain.soundBytes > 0 || start.found.damaged != nullptr ? chain.file : chain.file + 1;
  start.sequence = chain.sequence;
  start.previous = chain.previous;
  return kj::mv(start);
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
  auto opened = openLocked(fresh, O_CREAT | O_EXCL);
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
