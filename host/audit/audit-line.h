#pragma once
// One line of the audit log: what happened as one JSON object, ASCII only, and the two hashes that hold the log
// together.
//
//   {"seq":12,"file":3,"time":"2026-11-23T03:00:00.123456Z","who":"user:alice","vm":"web1","call":"power.shutdown",
//    "rule":"ops-power","outcome":"allowed","bytes":0,"duration-us":1200,...,"dropped":2,"torn":"...","torn-bytes":40,
//    "prev":"<64 hex>","sum":"<16 hex>"}
//
//   seq     1, 2, 3 ... over all files
//   file    only in the first line of a file: 1, 2, 3 ...
//   dropped how many events before this one could not be written (disk full)
//   torn    what of a line that a crash cut short was found here, at most MAX_TEXT_BYTES of it
//   prev    BLAKE2b-256 of the line before, without its newline; zeros before the first
//   sum     the first 8 bytes of BLAKE2b-256 of everything in this line up to `,"sum"`: so that damage to the newest
//           line, which no other line vouches for yet, is seen too. Against accidents, not against a forger
//
// Absent texts and numbers are left out. Texts are made safe: quotes, control characters and whatever is not ASCII are
// escaped, bytes that are not UTF-8 become U+FFFD, and a text is cut where its escaped form would pass MAX_TEXT_BYTES.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <stdint.h>

#include <array>

namespace postern::host {

constexpr size_t MAX_TEXT_BYTES = 4096;  // of one text, escaped: a path (PATH_MAX) fits
constexpr size_t MAX_AUDIT_FIELDS = 16;  // free fields of one event
constexpr size_t MAX_LINE_BYTES = size_t(128) << 10;
static_assert((6 + MAX_AUDIT_FIELDS) * (MAX_TEXT_BYTES + 64) + 512 < MAX_LINE_BYTES);

struct AuditField {
  kj::StringPtr key;  // ours: [a-z0-9-], none of the names above
  kj::OneOf<kj::StringPtr, int64_t, bool> value;
};

// Everything that is borrowed needs to live as long as the call that takes the event. Texts may be anybody's.
struct AuditEvent {
  kj::Date time = kj::UNIX_EPOCH;
  kj::StringPtr who;      // "user:alice", "vm:web1", "posternd"
  kj::StringPtr vm;       // empty: none
  kj::StringPtr call;     // "power.shutdown", "policy.reload"
  kj::StringPtr rule;     // which allowed or denied; empty: none matched
  kj::StringPtr outcome;  // "allowed", "denied", "done", "failed"
  kj::Maybe<uint64_t> bytes;
  kj::Maybe<kj::Duration> duration;
  kj::ArrayPtr<const AuditField> more;
};

using LineHash = std::array<kj::byte, 32>;
LineHash hashLine(kj::ArrayPtr<const char> lineWithoutNewline);
kj::String hexOf(const LineHash& hash);

// Where a line stands.
struct LinePlace {
  uint64_t sequence = 1;
  kj::Maybe<uint64_t> file;  // for the first line of a file
  LineHash previous{};
  uint64_t dropped = 0;
  kj::ArrayPtr<const char> torn;
};
// The line with its newline, at most MAX_LINE_BYTES.
kj::String formatLine(const AuditEvent& event, const LinePlace& place);

// What the chain needs of a line (without its newline). Null if it is no line that formatLine() has made.
struct ParsedLine {
  uint64_t sequence;
  kj::Maybe<uint64_t> file;
  kj::ArrayPtr<const char> previous;  // 64 hex digits, within the line
};
kj::Maybe<ParsedLine> parseLine(kj::ArrayPtr<const char> untrustedLine);

// RFC 3339, UTC, microseconds.
kj::String formatTime(kj::Date time);

}  // namespace postern::host
