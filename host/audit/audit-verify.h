#pragma once
// Whether an audit log is as it was written. verifyAudit() finds a line that was altered, dropped, reordered or
// duplicated, a file that is missing in between, and an unfinished end, and names the file and the line.
//
// What it can not find by itself, since the chain has no key and no end:
//  - lines cut off at the end, whole files cut off at the beginning (rotation does that, too): compare `head` and
//    `firstSequence` with what was noted elsewhere. A remembered head, of any earlier moment, must still be in the log;
//  - a log that was written anew from the altered line on, by someone with posternd's rights: again only a head that
//    was remembered elsewhere tells.
// Reads files only. A log that is being written or rotated meanwhile may look unfinished; then verify again.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "host/audit/audit-line.h"

namespace postern::host {

struct AuditProblem {
  enum class Kind {
    UNREADABLE,  // the file cannot be opened or read
    ALTERED,     // the line is not as it was written (also: too long, empty)
    CHAIN,       // the line is whole but does not follow the one before: something was dropped, moved or doubled
    UNFINISHED,  // the log's last line has no end: a crash, which the next start of posternd records, or a cut
    HEAD,        // the remembered head is in none of the lines: the log was cut at its end or written anew
  };
  Kind kind;
  kj::String file;
  uint64_t line;    // 1 is the first; 0: the whole file
  kj::String text;  // one printable line for a person, with file and line
};

struct AuditSummary {
  uint64_t lines = 0;
  uint64_t firstSequence = 0;  // 0: the log is empty
  uint64_t lastSequence = 0;
  kj::String head;  // hash of the last line, 64 hex digits: remember it
};

// `files` from the oldest to the newest.
kj::OneOf<AuditSummary, AuditProblem> verifyAudit(kj::ArrayPtr<const kj::String> files,
                                                  kj::Maybe<kj::StringPtr> rememberedHead = nullptr);

// The files of the log at `path` that are there, from the oldest (`path.N`) to the newest (`path`).
kj::Vector<kj::String> auditFiles(kj::StringPtr path);

// The last `count` lines of these files, the oldest first, without newlines; only those that are whole (parseLine),
// since a caller prints them. Unreadable files are passed over: verifyAudit() is who complains.
kj::Vector<kj::String> auditTail(kj::ArrayPtr<const kj::String> files, size_t count);

}  // namespace postern::host
