#pragma once
// Records: what posternd writes down: lines of the audit log, events for who listens, and lines of its own log. Nobody
// who is denied, as often as he likes, fills any of them: what repeats is counted (Repeats), what is denied is damped
// (Damper).
// One loop.

#include <kj/timer.h>

#include "host/audit/audit-log.h"
#include "host/config/config.h"
#include "host/daemon/damper.h"
#include "host/daemon/events.h"
#include "host/daemon/file-grants.h"
#include "host/daemon/local-callers.h"
#include "host/daemon/repeats.h"

namespace postern::host {

class Records {
 public:
  // `timer` outlives this.
  Records(kj::Timer& timer, kj::Own<AuditLog> audit);
  KJ_DISALLOW_COPY(Records);

  void setOnFailure(AuditFailure what) { onFailure = what; }

  // Why what is being recorded must not be done: it cannot be recorded. One line for a person. Null: go on.
  using Hindrance = kj::Maybe<kj::String>;

  // At the present time; a line that cannot be written is counted by the log, and said once in posternd's own, and so
  // is that lines can be written again.
  Hindrance append(AuditEvent line);
  Hindrance record(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule, kj::StringPtr outcome,
                   kj::StringPtr path = nullptr);
  // Who asked what, and what it came to.
  Hindrance decision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr path,
                     const FileDecision& decided);
  // An event, and a line of the log. `kind` is static; `other`: another VM that the text names.
  void tell(kj::StringPtr vm, kj::StringPtr kind, kj::String text, kj::StringPtr other = "");

  // What has been counted and is due.
  void flush(kj::TimePoint now);

  Events& eventLog() { return events; }
  AuditLog& auditLog() { return *audit; }

 private:
  kj::Timer& timer;
  kj::Own<AuditLog> audit;
  Events events;
  Repeats repeats;
  Damper denials;  // by caller
  AuditFailure onFailure = AuditFailure::REFUSE;
  bool failing = false;
  uint64_t droppedBefore = 0;  // of the log's, when it began to fail

  void tellFailure(AuditError error);
  void tellRecovery();
};

}  // namespace postern::host
