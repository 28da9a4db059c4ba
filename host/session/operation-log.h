#pragma once
// OperationLog: what a session process tells posternd for the audit log: one record when an operation is over, and of a
// copy, if posternd asked for it, one for each file as well. Its borrowed parts live as long as the call.

#include <kj/array.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/timer.h>
#include <stdint.h>

#include "host/control/control.capnp.h"

namespace postern::host {

// Of a file.* call.
struct FileTally {
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t sentBytes = 0;
  uint64_t failures = 0;
  uint64_t unchanged = 0;
  uint64_t leftOut = 0;                            // lines of files that were too many
  kj::Maybe<kj::ArrayPtr<const kj::byte>> hash{};  // of a single file that was verified
};

struct OperationRecord {
  uint64_t grant;
  kj::StringPtr call;
  kj::StringPtr outcome;  // "done", "given up": printable
  kj::Duration took = 0 * kj::SECONDS;
  uint64_t bytes = 0;
  // Of a file.* call: the path as ordered and, if this is about one file of a copy, that file's; any bytes.
  kj::StringPtr path = nullptr;
  kj::StringPtr entry = nullptr;
  kj::Maybe<const FileTally&> files = nullptr;
};

class OperationLog {
 public:
  // False: it was not told, because too much was.
  virtual bool operation(const OperationRecord& record) = 0;
  // A ping, which no line of the audit is for, is over; null: without an answer.
  virtual void pinged(kj::Maybe<kj::Duration>) {}
};

// A failure as an outcome.
kj::StringPtr outcomeOf(schema::Failure::Reader failure);

// One call, from its beginning: what it came to, or that it was given up.
class RunningOperation {
 public:
  // `call` is borrowed.
  RunningOperation(OperationLog& log, uint64_t grant, kj::StringPtr call)
      : log(log), grant(grant), call(call), began(now()) {}
  ~RunningOperation() noexcept(false) { log.operation({grant, call, outcome, now() - began}); }
  KJ_DISALLOW_COPY(RunningOperation);

  void came(kj::StringPtr to) { outcome = to; }
  static kj::TimePoint now() { return kj::systemPreciseMonotonicClock().now(); }

 private:
  OperationLog& log;
  const uint64_t grant;
  const kj::StringPtr call;
  const kj::TimePoint began;
  kj::StringPtr outcome = "given up"_kj;
};

}  // namespace postern::host
