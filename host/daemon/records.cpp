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

// T117
Records::Hindrance Records::append(AuditEvent line) {
  line.time = kj::systemPreciseCalendarClock().now();
  auto dropped = audit->droppedEvents();
  KJ_IF_MAYBE (error, audit->append(line)) {
    if (!failing) droppedBefore = dropped;
    if (!failing) tellFailure(*error);
    if (onFailure == AuditFailure::CONTINUE) return nullptr;
    return kj::str("not done, since it cannot be recorded: ", describe(*error));
  }
  if (failing) tellRecovery();
  return nullptr;
}

// Once, not for each line of a full disk; the log itself counts what it had to drop.
void Records::tellFailure(AuditError error) {
  failing = true;
  auto then = onFailure == AuditFailure::REFUSE ? "nothing is done that would have to be recorded"_kj
                                                : "all goes on, and lines are lost"_kj;
  auto text = kj::str(describe(error), "; until then ", then);
  logEvent(LogLevel::ERROR, "audit-failed", text);
  events.add("", "audit-failed", kj::mv(text));
}

void Records::tellRecovery() {
  failing = false;
  auto text = kj::str("it can be written again; ", audit->droppedEvents() - droppedBefore, " lines were lost");
  logEvent(LogLevel::WARNING, "audit-recovered", text);
  events.add("", "audit-recovered", kj::mv(text));
}

Records::Hindrance Records::record(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule,
                                   kj::StringPtr outcome, kj::StringPtr path) {
  AuditEvent line;
  line.who = who;
  line.vm = vm;
  line.call = call;
  line.rule = rule;
  line.outcome = outcome;
  const AuditField pathField[] = {{"path", path}};
  if (path.size() > 0) line.more = pathField;
  return append(line);
}

Records::Hindrance Records::decision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call,
                                     kj::StringPtr path, const FileDecision& decided) {
  auto who = caller.name();
  auto& decision = decided.decision;
  auto rule = decided.below ? ""_kj : decision.ruleId();
  auto outcome = decision.isAllowed() ? "allowed"_kj : decided.below ? "allowed below"_kj : "denied"_kj;
  // While lines are lost, what is repeated is no news of less worth: it shows whether they still are.
  bool isNews = repeats.isFirst(timer.now(), who, vm, call, rule, outcome, path) || failing;
  if (!isNews) return nullptr;
  if (decided.isGranted()) return record(who, vm, call, rule, outcome, path);
  // Anybody can be denied, as often as he likes; and the log is kept in so many files.
  KJ_IF_MAYBE (leftOut, denials.take(who)) {
    auto more = *leftOut == 0 ? kj::String() : kj::str(", and ", *leftOut, " times before that were not recorded");
    record(who, vm, call, rule, kj::str("denied", more), path);
    auto what = path.size() == 0 ? kj::str(call) : kj::str(call, " of ", printable(path, MAX_SHOWN_PATH_BYTES));
    tell(vm, "denied", kj::str(who, ": ", what, ": ", decision.toString(), more));
  }
  return nullptr;
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
