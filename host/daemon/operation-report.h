#pragma once
// What a session process reports of an operation, as a checked value, and what becomes of it in the audit log. The
// process parses a hostile guest, so all of it is a claim: numbers and texts are bounded here, and texts are made
// printable, but for paths, which the audit log makes safe itself.

#include <kj/string.h>
#include <kj/vector.h>

#include "host/audit/audit-line.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

struct FileReport {
  kj::String path;
  kj::String entry;  // empty: it is about the whole operation
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t sentBytes = 0;
  uint64_t failures = 0;
  uint64_t unchanged = 0;
  uint64_t leftOut = 0;
  kj::String hash;  // hexadecimal, or empty
};

struct OperationReport {
  uint64_t grant;
  kj::String call;
  kj::String outcome;
  kj::Duration took;
  uint64_t bytes;
  kj::Maybe<FileReport> files;
};
OperationReport parseOperationReport(schema::SessionObserver::OperationParams::Reader untrusted);

// The line for it; `report` outlives this, and this the event.
class AuditFields {
 public:
  explicit AuditFields(const OperationReport& report);
  AuditEvent event() const;

 private:
  const OperationReport& report;
  kj::Vector<AuditField> fields;
};

}  // namespace postern::host
