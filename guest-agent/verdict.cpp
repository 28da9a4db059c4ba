#include "guest-agent/verdict.h"

namespace postern::guest {

namespace {

// What a Refusal's fields hold at most, so that a denial never makes a large message.
constexpr size_t MAX_DETAIL_BYTES = 1024;
constexpr size_t MAX_SUGGESTION_BYTES = 4096;

kj::StringPtr front(kj::StringPtr text, size_t most, kj::String& room) {
  if (text.size() <= most) return text;
  while (most > 0 && (text[most] & 0xc0) == 0x80) --most;
  room = kj::heapString(text.slice(0, most));
  return room;
}

}  // namespace

void fill(schema::Refusal::Builder out, const Denial& denial) {
  kj::String room;
  fill(out, schema::Refusal::Reason::DENIED, denial.detail);
  out.setRule(denial.rule);
  out.setSuggestion(front(denial.suggestion, MAX_SUGGESTION_BYTES, room));
}

void fill(schema::Refusal::Builder out, schema::Refusal::Reason reason, kj::StringPtr detail) {
  kj::String room;
  out.setReason(reason);
  out.setDetail(front(detail, MAX_DETAIL_BYTES, room));
}

}  // namespace postern::guest
