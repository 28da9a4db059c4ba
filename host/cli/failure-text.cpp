#include "host/cli/failure-text.h"

#include <string.h>

#include "transport/printable.h"

namespace postern::cli {

namespace {

constexpr size_t MAX_LINES = 500;
constexpr size_t MAX_LINE_BYTES = 1000;

}  // namespace

kj::String shown(kj::StringPtr untrusted, size_t maxBytes) {
  return printable(untrusted.asArray(), maxBytes);
}

kj::String shownLines(kj::StringPtr untrusted, kj::StringPtr indent) {
  kj::Vector<kj::String> lines;
  auto rest = untrusted.asArray();
  while (rest.size() > 0 && lines.size() < MAX_LINES) {
    size_t end = 0;
    while (end < rest.size() && rest[end] != '\n') ++end;
    auto line = printable(rest.slice(0, end), MAX_LINE_BYTES);
    lines.add(line.size() == 0 ? kj::str("\n") : kj::str(indent, line, '\n'));
    rest = rest.slice(kj::min(end + 1, rest.size()), rest.size());
  }
  if (rest.size() > 0) lines.add(kj::str(indent, "...\n"));
  return kj::strArray(lines, "");
}

kj::String lineOf(const client::Failure& failure) {
  auto text = printable(failure.text.asArray(), client::MAX_FAILURE_TEXT_BYTES);
  if (failure.kind != client::FailureKind::DENIED) return text;
  // Nothing is said twice: posternd's own texts, and those of this version's guests, say why; some say whose policy.
  kj::Vector<kj::String> rest;
  if (strstr(text.cStr(), "denied: ") == nullptr && strstr(text.cStr(), "denied by rule") == nullptr) {
    rest.add(failure.rule.size() == 0 ? kj::str("no rule allows it")
                                      : kj::str("denied by rule '", shown(failure.rule, 80), "'"));
  }
  auto whose = kj::str("the ", lockName(failure.lock), "'s policy");
  if (strstr(text.cStr(), whose.cStr()) == nullptr) rest.add(kj::mv(whose));
  return rest.empty() ? kj::mv(text) : kj::str(text, " (", kj::strArray(rest, "; "), ")");
}

kj::String suggestionOf(const client::Failure& failure) {
  if (failure.kind != client::FailureKind::DENIED || failure.suggestion.size() == 0) return kj::str();
  auto where = failure.lock == client::Lock::HOST ? "a file of the host's /etc/postern/policy.d"_kj
                                                  : "the guest's /etc/postern/agent.toml"_kj;
  return kj::str("to allow it, in ", where, ":\n", shownLines(failure.suggestion, "  "));
}

kj::String errorText(const client::Failure& failure) {
  if (failure.kind == client::FailureKind::INTERRUPTED) return kj::str();
  return kj::str("postern: ", lineOf(failure), '\n', suggestionOf(failure));
}

void writeError(JsonWriter& json, const client::Failure& failure) {
  json.beginObject().field("kind", client::kindName(failure.kind)).field("text", failure.text);
  if (failure.kind == client::FailureKind::DENIED) {
    json.field("rule", failure.rule).field("suggestion", failure.suggestion).field("lock", lockName(failure.lock));
  }
  json.endObject();
}

}  // namespace postern::cli
