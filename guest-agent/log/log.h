#pragma once
// The log of both processes: one line an event, on stderr. Each line has a stable event name, which a person greps for
// and a monitor counts, and a sentence that says what happened and, where there is something to do, what to do.
//
//   terminal   12:04:05 warning  link-refused: the host refused the handshake; ...
//   journal    <4>link-refused: the host refused the handshake; ...            (JOURNAL_STREAM is stderr)
//   otherwise
//   {"time":"2026-05-01T12:04:05.123Z","level":"warning","event":"link-refused","process":"agent","text":"..."}
//
// Texts may hold what a peer said, if bounded; control characters and invalid UTF-8 are made harmless here. Opens no
// file and asks for no time zone, so it works within the sandbox.

#include <kj/string.h>
#include <stdint.h>

namespace postern::guest {

enum class LogForm { TEXT, JOURNAL, JSON };
// What stderr is. Reads the environment.
LogForm logFormOfStderr();

// Once, before the first line. `process` is "broker" or "agent". Not thread-safe against lines.
void setUpLog(LogForm form, kj::StringPtr process);

void logInfo(kj::StringPtr event, kj::StringPtr text);
void logWarning(kj::StringPtr event, kj::StringPtr text);
void logError(kj::StringPtr event, kj::StringPtr text);

// The line that logging gives, without its end; `microsecondsSince1970` as the clock had it.
enum class LogLevel { INFO, WARNING, ERROR };
kj::String formatLogLine(LogForm form, kj::StringPtr process, LogLevel level, uint64_t microsecondsSince1970,
                         kj::StringPtr event, kj::StringPtr text);

}  // namespace postern::guest
