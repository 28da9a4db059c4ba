#include "host/daemon/operation-report.h"

#include <kj/encoding.h>

#include "host/metrics/bounded-number.h"
#include "protocol/transfer/limits.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

kj::String boundedPath(capnp::Data::Reader untrusted) {
  return kj::heapString(untrusted.asChars().slice(0, kj::min(untrusted.size(), transfer::MAX_PATH_BYTES)));
}

FileReport parse(schema::SessionObserver::FileOutcome::Reader untrusted) {
  FileReport report;
  report.path = boundedPath(untrusted.getPath());
  report.entry = boundedPath(untrusted.getEntry());
  report.files = bounded(untrusted.getFiles());
  report.directories = bounded(untrusted.getDirectories());
  report.sentBytes = bounded(untrusted.getSentBytes());
  report.failures = bounded(untrusted.getFailures());
  report.unchanged = bounded(untrusted.getUnchanged());
  report.leftOut = bounded(untrusted.getLeftOut());
  if (untrusted.getHash().size() == transfer::HASH_BYTES) report.hash = kj::encodeHex(untrusted.getHash());
  return report;
}

}  // namespace

OperationReport parseOperationReport(schema::SessionObserver::OperationParams::Reader untrusted) {
  OperationReport report{untrusted.getGrant(),
                         printable(untrusted.getCall(), 64),
                         printable(untrusted.getOutcome(), 200),
                         kj::min(untrusted.getMicroseconds(), uint64_t(1) << 50) * kj::MICROSECONDS,
                         bounded(untrusted.getBytes()),
                         nullptr};
  if (untrusted.hasFiles()) report.files = parse(untrusted.getFiles());
  return report;
}

AuditFields::AuditFields(const OperationReport& report) : report(report) {
  auto text = [&](kj::StringPtr key, kj::StringPtr value) {
    if (value.size() > 0) fields.add(AuditField{key, value});
  };
  auto number = [&](kj::StringPtr key, uint64_t value) { fields.add(AuditField{key, static_cast<int64_t>(value)}); };
  KJ_IF_MAYBE (files, report.files) {
    text("path", files->path);
    text("entry", files->entry);
    text("hash", files->hash);
    if (files->entry.size() > 0) return;
    number("files", files->files);
    number("directories", files->directories);
    number("sent-bytes", files->sentBytes);
    number("failures", files->failures);
    number("unchanged", files->unchanged);
    if (files->leftOut > 0) number("lines-left-out", files->leftOut);
  }
}

AuditEvent AuditFields::event() const {
  AuditEvent event;
  event.call = report.call;
  event.outcome = report.outcome;
  if (report.bytes > 0 || report.files != nullptr) event.bytes = report.bytes;
  bool isEntry = false;
  KJ_IF_MAYBE (files, report.files) isEntry = files->entry.size() > 0;
  if (!isEntry) event.duration = report.took;
  event.more = fields;
  return event;
}

}  // namespace postern::host
