#pragma once
// The host's log: one line an event on stderr, with a stable event name. Text on a terminal, one JSON object a line
// otherwise, and where stderr is the journal, text with the journal's priority in front. UTC.
//
// Everything logged is made printable here: a guest's or a caller's text cannot break out of its line.

#include <kj/string.h>

namespace postern::host {

enum class LogLevel { DEBUG, INFO, WARNING, ERROR };

// Once, at the start of a program. `program` lives as long as the process.
void setUpLog(kj::StringPtr program, LogLevel least = LogLevel::INFO);

// `event`: kebab-case, stable. `vm`: empty where it is not about one.
void logEvent(LogLevel level, kj::StringPtr event, kj::StringPtr text, kj::StringPtr vm = ""_kj);

}  // namespace postern::host
