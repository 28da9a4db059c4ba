#include "host/client/failure.h"

namespace postern::client {

namespace {

using HostKind = host::schema::Failure::Kind;
using Reason = schema::Refusal::Reason;

kj::String bounded(capnp::Text::Reader text, size_t maxBytes) {
  return kj::heapString(text.slice(0, kj::min(text.size(), maxBytes)));
}

FailureKind kindOf(HostKind kind) {
  switch (kind) {
    case HostKind::FAILED:
      return FailureKind::FAILED;
    case HostKind::INVALID:
      return FailureKind::INVALID;
    case HostKind::DENIED:
      return FailureKind::DENIED;
    case HostKind::NOT_CONNECTED:
      return FailureKind::NOT_CONNECTED;
    case HostKind::TIMED_OUT:
      return FailureKind::TIMED_OUT;
    case HostKind::REFUSED:
      return FailureKind::REFUSED;
    case HostKind::LAPSED:
      return FailureKind::LAPSED;
  }
  return FailureKind::FAILED;  // of a newer posternd
}

FailureKind kindOf(Reason reason) {
  switch (reason) {
    case Reason::DENIED:
      return FailureKind::DENIED;
    case Reason::TOO_LATE:
      return FailureKind::TIMED_OUT;
    case Reason::FAILED:
      return FailureKind::FAILED;
    case Reason::UNSUPPORTED:
    case Reason::INVALID:
    case Reason::BUSY:
    case Reason::INHIBITED:
      return FailureKind::REFUSED;
  }
  return FailureKind::REFUSED;  // of a newer guest
}

kj::StringPtr wordsFor(Reason reason) {
  switch (reason) {
    case Reason::DENIED:
      return "the guest's policy denies it"_kj;
    case Reason::UNSUPPORTED:
      return "the guest cannot do it"_kj;
    case Reason::INVALID:
      return "the guest finds the request invalid"_kj;
    case Reason::BUSY:
      return "the guest is busy with another request"_kj;
    case Reason::TOO_LATE:
      return "it came too late for the guest to do it"_kj;
    case Reason::FAILED:
      return "the guest tried and failed"_kj;
    case Reason::INHIBITED:
      return "a program of the guest inhibits it"_kj;
  }
  return "the guest refused"_kj;
}

}  // namespace

kj::StringPtr kindName(FailureKind kind) {
  switch (kind) {
    case FailureKind::FAILED:
      return "failed"_kj;
    case FailureKind::INVALID:
      return "invalid"_kj;
    case FailureKind::DENIED:
      return "denied"_kj;
    case FailureKind::NOT_CONNECTED:
      return "not-connected"_kj;
    case FailureKind::TIMED_OUT:
      return "timed-out"_kj;
    case FailureKind::REFUSED:
      return "refused"_kj;
    case FailureKind::LAPSED:
      return "lapsed"_kj;
    case FailureKind::INTERRUPTED:
      return "interrupted"_kj;
  }
  KJ_UNREACHABLE;
}

kj::StringPtr lockName(Lock lock) {
  return lock == Lock::HOST ? "host"_kj : "guest"_kj;
}

Failure failureOf(host::schema::Failure::Reader failure) {
  return {kindOf(failure.getKind()), bounded(failure.getText(), MAX_FAILURE_TEXT_BYTES),
          bounded(failure.getRule(), MAX_FAILURE_TEXT_BYTES), bounded(failure.getSuggestion(), MAX_SUGGESTION_BYTES),
          failure.getLock() == host::schema::Failure::Lock::GUEST ? Lock::GUEST : Lock::HOST};
}

Failure failureOf(schema::Refusal::Reader refusal) {
  auto words = wordsFor(refusal.getReason());
  auto detail = bounded(refusal.getDetail(), MAX_FAILURE_TEXT_BYTES);
  // Which says so itself.
  if (detail.startsWith("denied")) words = "the guest's policy"_kj;
  return {kindOf(refusal.getReason()), detail.size() == 0 ? kj::str(words) : kj::str(words, ": ", detail),
          bounded(refusal.getRule(), MAX_FAILURE_TEXT_BYTES), bounded(refusal.getSuggestion(), MAX_SUGGESTION_BYTES),
          Lock::GUEST};
}

Failure failureOf(const kj::Exception& exception, kj::StringPtr otherEnd) {
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      return failure(FailureKind::FAILED, kj::str(otherEnd, " closed the connection before it had answered"));
    case kj::Exception::Type::UNIMPLEMENTED:
      return failure(FailureKind::REFUSED,
                     kj::str(otherEnd, " is older and does not know this call: update or restart it"));
    case kj::Exception::Type::OVERLOADED:
      return failure(FailureKind::FAILED, kj::str(otherEnd, " is overloaded; try again"));
    case kj::Exception::Type::FAILED:
      break;
  }
  auto text = exception.getDescription();
  return failure(
      FailureKind::FAILED,
      kj::str(otherEnd, " could not answer: ", kj::heapString(text.slice(0, kj::min(text.size(), size_t(300))))));
}

}  // namespace postern::client
