#pragma once
// ChainCheck: walks the audit log's files from the oldest to the newest and stops at the first line that does not fit.
// For verifyAudit() and for AuditLog, which continues where it ends.

#include "host/audit/audit-line.h"
#include "host/audit/audit-verify.h"
#include "host/audit/line-reader.h"

namespace postern::host {

struct ChainCheck {
  kj::Maybe<kj::StringPtr> wanted;  // hash of a line that should come by

  // So far:
  uint64_t lines = 0;
  uint64_t firstSequence = 0;
  uint64_t sequence = 0;  // of the last line
  uint64_t file = 0;      // its file's number
  LineHash previous{};    // its hash
  bool wantedSeen = false;
  uint64_t soundBytes = 0;  // of the last file that was read: up to the end of its last line that fits
  kj::String tail;          // an unfinished last line, at most MAX_LINE_BYTES of it

  // The next file, to its end or to its first problem. The first line of the first one is believed: older files may
  // have been rotated away.
  kj::Maybe<AuditProblem> readFile(kj::StringPtr path);

 private:
  kj::Maybe<AuditProblem> readLines(kj::StringPtr path, LineReader& reader);
  kj::Maybe<AuditProblem> check(kj::StringPtr path, uint64_t number, const LineReader::Line& line);
  kj::Maybe<kj::String> fault(uint64_t number, const ParsedLine& line) const;
};

}  // namespace postern::host
