#include "host/daemon/metrics-page.h"

#include "host/metrics/process-metrics.h"

namespace postern::host {

namespace {

// Of the policy's hash, as the log and `postern policy reload` show it.
constexpr size_t SHOWN_HASH_DIGITS = 16;

double secondsSince1970(kj::Date date) {
  return double((date - kj::UNIX_EPOCH) / kj::MILLISECONDS) / 1e3;
}

void writeBuildInfo(Exposition& to) {
  to.family("postern_build_info", MetricType::GAUGE, "The posternd that runs; always 1.");
  to.sample({{"version", POSTERN_VERSION}}, uint64_t(1));
}

void writeWork(Exposition& to, Daemon& daemon) {
  auto& counted = daemon.metrics();
  to.family("postern_operations_total", MetricType::COUNTER, "Operations in guests that are over, without pings.");
  counted.operations.write(to);
  to.family("postern_operation_bytes_total", MetricType::COUNTER, "Bytes of whole files that operations have moved.");
  counted.operationBytes.write(to);
  to.family("postern_decisions_total", MetricType::COUNTER, "Requests of local callers that policy has decided.");
  counted.decisions.write(to);
  to.family("postern_denials_total", MetricType::COUNTER, "Requests denied, by the rule; none: no rule allows it.");
  counted.denials.write(to);
  to.gauge("postern_grants", "Connections of local callers to VMs that are granted now.", double(daemon.countGrants()));
  to.family("postern_control_calls_total", MetricType::COUNTER, "Calls on the control socket.");
  counted.controlCalls.write(to);
  to.gauge("postern_control_connections", "Connections to the control socket now.", counted.controlConnections);
  to.family("postern_turned_away_total", MetricType::COUNTER, "Connections of guests that were closed unread.");
  counted.turnedAway.write(to);
  to.family("postern_events_total", MetricType::COUNTER, "Events, as `postern events` has them.");
  daemon.eventLog().counts().write(to);
}

void writePolicy(Exposition& to, const PolicyStore& store) {
  auto hash = policy::toHex(store.current().hash());
  to.family("postern_policy_info", MetricType::GAUGE, "The policy that counts, by its hash; always 1.");
  to.sample({{"hash", kj::str(hash.slice(0, SHOWN_HASH_DIGITS))}}, uint64_t(1));
  auto& reloads = store.reloads();
  to.family("postern_policy_loads_total", MetricType::COUNTER, "Times that the policy was loaded from its files.");
  to.sample({{"outcome", "done"}}, reloads.done);
  to.sample({{"outcome", "failed"}}, reloads.failed);
  to.gauge("postern_policy_last_load_successful", "Whether the last time the policy could be loaded.",
           reloads.lastDone);
  to.gauge("postern_policy_last_success_timestamp_seconds", "When the policy was last loaded, in seconds since 1970.",
           secondsSince1970(reloads.lastDoneAt));
}

void writeAudit(Exposition& to, const AuditLog& audit) {
  to.counter("postern_audit_lines_total", "Lines of the audit log, over all its files.", audit.lastSequence());
  to.gauge("postern_audit_unsynced_lines", "Lines that the disk has not yet been asked to keep.",
           double(audit.lastSequence() - audit.confirmedSequence()));
  to.counter("postern_audit_failures_total", "Lines that could not be written, or not be synced.", audit.failures());
  to.counter("postern_audit_dropped_total", "Events that have no line because it could not be written.",
             audit.droppedEvents());
  to.gauge("postern_audit_failing", "Whether writing the last line of the audit log has failed.",
           audit.trouble() != nullptr);
  to.gauge("postern_audit_file_bytes", "Size of the newest file of the audit log.", double(audit.fileBytes()));
}

void writeSelf(Exposition& to, Daemon& daemon) {
  to.gauge("postern_vms", "VMs that are registered.", double(daemon.countVms()));
  to.gauge("postern_board_slots", "Slots of the status board.", daemon.statusBoard().capacity());
  to.gauge("postern_board_used_slots", "Slots of the status board that a VM has.", daemon.statusBoard().count());
  to.family("postern_loop_lag_seconds", MetricType::HISTOGRAM, "How late posternd's event loop was.");
  daemon.metrics().loopLag.write(to);
}

}  // namespace

kj::String makeMetricsPage(Daemon& daemon) {
  Exposition page;
  writeBuildInfo(page);
  writeProcessMetrics(page);
  writeSelf(page, daemon);
  writeWork(page, daemon);
  writePolicy(page, daemon.policy());
  writeAudit(page, daemon.recording().auditLog());
  writeVmMetrics(page, daemon);
  writeChannelMetrics(page, daemon);
  return page.finish();
}

}  // namespace postern::host
