#include "host/daemon/records.h"

#include "host/log/log.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

// Of a path in an event.
constexpr size_t MAX_SHOWN_PATH_BYTES = 200;
// Denials of one caller: so many at once, then so many a minute.
constexpr unsigned DENIALS_BURST = 200;
constexpr unsigned DENIALS_PER_MINUTE = 60;

}  // namespace

Records::Records(kj::Timer& timer, kj::Own<AuditLog> audit)
    : timer(timer), audit(kj::mv(audit)), denials(timer, DENIALS_BURST, DENIALS_PER_MINUTE) {}

void Records::append(AuditEvent line) {
  line.time = kj::systemPreciseCalendarClock().now();
  KJ_IF_MAYBE (error, audit->append(line)) {
    // Said once, not for each line of a full disk; the log itself counts what it had to drop.
    if (failures++ == 0) logEvent(LogLevel::ERROR, "audit-failed", describe(*error));
  } else {
    failures = 0;
  }
}

void Records::record(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule, kj::StringPtr outcome,
                     kj::StringPtr path) {
  AuditEvent line;
  line.who = who;
  line.vm = vm;
  line.call = call;
  line.rule = rule;
  line.outcome = outcome;
  const AuditField pathField[] = {{"path", path}};
  if (path.size() > 0) line.more = pathField;
  append(line);
}

void Records::decision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr path,
                       const FileDecision& decided) {
  auto who = caller.name();
  auto& decision = decided.decision;
  auto rule = decided.below ? ""_kj : decision.ruleId();
  auto outcome = decision.isAllowed() ? "allowed"_kj : decided.below ? "allowed below"_kj : "denied"_kj;
  if (!repeats.isFirst(timer.now(), who, vm, call, rule, outcome, path)) return;
  if (decided.isGranted()) return record(who, vm, call, rule, outcome, path);
  // Anybody can be denied, as often as he likes; and the log is kept in so many files.
  KJ_IF_MAYBE (leftOut, denials.take(who)) {
    auto more = *leftOut == 0 ? kj::String() : kj::str(", and ", *leftOut, " times before that were not recorded");
    record(who, vm, call, rule, kj::str("denied", more), path);
    auto what = path.size() == 0 ? kj::str(call) : kj::str(call, " of ", printable(path, MAX_SHOWN_PATH_BYTES));
    tell(vm, "denied", kj::str(who, ": ", what, ": ", decision.toString(), more));
  }
}

void Records::tell(kj::StringPtr vm, kj::StringPtr kind, kj::String text, kj::StringPtr other) {
  logEvent(LogLevel::INFO, kind, text, vm);
  events.add(vm, kind, kj::mv(text), other);
}

void Records::flush(kj::TimePoint now) {
  repeats.flush(now, [this](const DecisionKind& kind, uint64_t times) {
    record(kind.who, kind.vm, kind.call, kind.rule, kj::str(kind.outcome, " (", times, " more)"), kind.path);
  });
}

}  // namespace postern::host
