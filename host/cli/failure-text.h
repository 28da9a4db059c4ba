#pragma once
// A failure as people and as programs see it.

#include "host/client/failure.h"
#include "transport/json-writer.h"

namespace postern::cli {

// One line, without newline: "web1: power.shutdown is denied by rule 'no-night' (host's policy)". Printable.
kj::String lineOf(const client::Failure& failure);
// What to write to allow it, indented, with newlines; empty if there is no suggestion. Printable.
kj::String suggestionOf(const client::Failure& failure);

// Both, as they go to stderr: "postern: ...\n". Nothing for an interruption: whoever pressed Ctrl-C knows.
kj::String errorText(const client::Failure& failure);

// The fields of {"kind":...,"text":...}; for a denial also rule, suggestion and lock.
void writeError(JsonWriter& json, const client::Failure& failure);

// Text of others on a line of its own or in a table.
kj::String shown(kj::StringPtr untrusted, size_t maxBytes = 200);
// Text of others that may have several lines: each printable and indented by `indent`, with newlines.
kj::String shownLines(kj::StringPtr untrusted, kj::StringPtr indent);

}  // namespace postern::cli
