#pragma once
// Failure: why something that was asked of Postern was not done, with what a caller branches on. Every function of this
// library gives an Outcome; none throws for what posternd, a session or a guest says or does not say.
//
// The texts are bounded but as they came: whoever shows them makes them printable.

#include <kj/exception.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include "host/control/control.capnp.h"
#include "protocol/guest.capnp.h"

namespace postern::client {

enum class FailureKind : uint8_t {
  FAILED,
  INVALID,        // the request makes no sense, or names a VM that is not known to this caller
  DENIED,         // by the policy of `lock`
  NOT_CONNECTED,  // the VM
  TIMED_OUT,
  REFUSED,      // the other end refused, or cannot do it
  LAPSED,       // the posternd that granted it has gone; openVm() asks the one that runs
  INTERRUPTED,  // by the user of this program
};
kj::StringPtr kindName(FailureKind kind);  // "not-connected"

enum class Lock : uint8_t { HOST, GUEST };
kj::StringPtr lockName(Lock lock);  // "host"

struct Failure {
  FailureKind kind;
  kj::String text;        // one line: what, on what, what to do
  kj::String rule;        // DENIED: the rule that denies; empty: no rule allows it
  kj::String suggestion;  // DENIED: what to write into the policy of `lock` to allow it; may have several lines
  Lock lock = Lock::HOST;
};

template <typename T>
using Outcome = kj::OneOf<T, Failure>;

// Bounds of what is kept of others' texts.
constexpr size_t MAX_FAILURE_TEXT_BYTES = 1024;
constexpr size_t MAX_SUGGESTION_BYTES = 4096;

Failure failureOf(host::schema::Failure::Reader failure);
Failure failureOf(schema::Refusal::Reader refusal);
// Of a call that ended without an answer. `otherEnd` begins the line: "posternd", "the session of web1".
Failure failureOf(const kj::Exception& exception, kj::StringPtr otherEnd);

inline Failure failure(FailureKind kind, kj::String text) {
  return {kind, kj::mv(text), nullptr, nullptr, Lock::HOST};
}

}  // namespace postern::client
