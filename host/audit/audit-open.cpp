// AuditLog::open(): where the log that is there ends, and what state that end is in.

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <unistd.h>

#include "host/audit/audit-log.h"
#include "host/audit/chain-check.h"
#include "host/audit/locked-file.h"

namespace postern::host {

namespace {

using Kind = AuditProblem::Kind;

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
  auto opened = openLocked(path, LockedFileMode::EXISTING);
  if (opened.error == ENOENT) {
    start.isNew = true;
    opened = openLocked(path, LockedFileMode::CREATE);
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

}  // namespace postern::host
