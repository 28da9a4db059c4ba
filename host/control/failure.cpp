#include "host/control/failure.h"

#include "transport/printable.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;
using Reason = postern::schema::Refusal::Reason;

Kind kindOf(Reason reason) {
  switch (reason) {
    case Reason::DENIED:
      return Kind::DENIED;
    case Reason::TOO_LATE:
      return Kind::TIMED_OUT;
    case Reason::FAILED:
      return Kind::FAILED;
    case Reason::INVALID:
    case Reason::UNSUPPORTED:
    case Reason::BUSY:
    case Reason::INHIBITED:
      break;
  }
  return Kind::REFUSED;  // also what a later version may say
}

kj::StringPtr wordsOf(Reason reason) {
  switch (reason) {
    case Reason::DENIED:
      return "denied by the guest's policy";
    case Reason::INVALID:
      return "the guest finds the request invalid";
    case Reason::TOO_LATE:
      return "the guest had the request too late";
    case Reason::FAILED:
      return "the guest failed";
    case Reason::UNSUPPORTED:
      return "the guest does not support it";
    case Reason::BUSY:
      return "the guest is busy with another one";
    case Reason::INHIBITED:
      return "held off in the guest";
  }
  return "the guest refused";
}

// Policy text has several lines; everything else that is not printable goes.
kj::String printableLines(kj::StringPtr text) {
  auto result = kj::heapString(kj::min(text.size(), size_t(2048)));
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = text[i] == '\n' || (text[i] >= ' ' && text[i] <= '~') ? text[i] : '?';
  }
  return result;
}

}  // namespace

void setFailure(schema::Failure::Builder failure, Kind kind, kj::StringPtr text) {
  failure.setKind(kind);
  failure.setText(text);
}

void setFailure(schema::Failure::Builder failure, postern::schema::Refusal::Reader refusal) {
  failure.setKind(kindOf(refusal.getReason()));
  failure.setLock(schema::Failure::Lock::GUEST);
  auto detail = printable(refusal.getDetail(), 1024);
  auto words = wordsOf(refusal.getReason());
  // Which says so itself.
  if (detail.startsWith("denied")) words = "the guest's policy";
  failure.setText(detail.size() == 0 ? kj::str(words) : kj::str(words, ": ", detail));
  failure.setRule(printable(refusal.getRule(), 64));
  failure.setSuggestion(printableLines(refusal.getSuggestion()));
}

}  // namespace postern::host
