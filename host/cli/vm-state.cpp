#include "host/cli/vm-state.h"

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "host/health/reason.h"

namespace postern::cli {

namespace {

// Far more than any VM has lived for; larger numbers are somebody's mistake and must not overflow.
constexpr uint64_t MAX_SECONDS = uint64_t(100) * 366 * 86400;

kj::Duration secondsOf(uint64_t seconds) {
  return static_cast<int64_t>(kj::min(seconds, MAX_SECONDS)) * kj::SECONDS;
}
kj::Duration millisecondsOf(uint64_t ms) {
  return static_cast<int64_t>(kj::min(ms, MAX_SECONDS * 1000)) * kj::MILLISECONDS;
}

// What the word means; the word itself if it is of a newer posternd.
kj::String explanationOf(kj::StringPtr word) {
  for (auto reason : host::allReasons()) {
    if (word == host::reasonName(reason)) return kj::str(host::describe(reason));
  }
  return kj::str(word);
}

}  // namespace

VmState stateOf(const host::BoardVm& vm, kj::TimePoint now) {
  VmState state{kj::str(vm.name),
                kj::str(host::colourName(vm.verdict.colour)),
                kj::str(host::reasonName(vm.verdict.reason)),
                kj::str(host::describe(vm.verdict.reason)),
                now - vm.verdict.since,
                nullptr,
                nullptr,
                0 * kj::SECONDS};
  KJ_IF_MAYBE (report, vm.report) {
    state.heartbeat = now - report->at;
    state.agentVersion = kj::str(report->agentVersion);
    state.uptime = report->guestUptime;
  }
  return state;
}

VmState stateOf(host::schema::VmStatus::Reader status) {
  kj::Maybe<kj::Duration> heartbeat;
  if (status.getHeartbeatMilliseconds() >= 0) {
    heartbeat = millisecondsOf(static_cast<uint64_t>(status.getHeartbeatMilliseconds()));
  }
  return {kj::str(status.getName()),
          kj::str(status.getColour()),
          kj::str(status.getReason()),
          explanationOf(status.getReason()),
          millisecondsOf(status.getSinceMilliseconds()),
          heartbeat,
          kj::str(status.getAgentVersion()),
          secondsOf(status.getUptimeSeconds())};
}

Tint tintOf(kj::StringPtr colour) {
  if (colour == "green"_kj) return Tint::GREEN;
  if (colour == "yellow"_kj) return Tint::YELLOW;
  if (colour == "red"_kj) return Tint::RED;
  return Tint::GRAY;
}

kj::String tableOf(kj::ArrayPtr<const VmState> states, Colours colours) {
  Table table({"VM", "STATE", "FOR", "HEARTBEAT", "AGENT", "UP", "REASON"});
  for (auto& state : states) {
    auto heartbeat = state.heartbeat.map([](kj::Duration age) { return kj::str(describeDuration(age), " ago"); });
    auto uptime = state.uptime > 0 * kj::SECONDS ? describeDuration(state.uptime) : kj::str("-");
    auto version = state.agentVersion.size() > 0 ? shown(state.agentVersion, 32) : kj::str("-");
    table.add(kj::arr(Table::Cell{shown(state.name, 64)}, Table::Cell{shown(state.colour, 16), tintOf(state.colour)},
                      Table::Cell{describeDuration(state.since)},
                      Table::Cell{kj::mv(heartbeat).orDefault(kj::str("-"))}, Table::Cell{kj::mv(version)},
                      Table::Cell{kj::mv(uptime)}, Table::Cell{shown(state.explanation, 100)}));
  }
  return table.format(colours);
}

kj::String lineOf(const VmState& state) {
  return kj::str(shown(state.name, 64), ": ", shown(state.colour, 16), " (", shown(state.explanation, 100), ")");
}

void writeFields(JsonWriter& json, const VmState& state) {
  json.field("vm", state.name).field("state", state.colour).field("reason", state.reason);
  json.field("explanation", state.explanation).field("sinceSeconds", milliseconds(state.since) / 1000);
  json.key("heartbeatSeconds");
  KJ_IF_MAYBE (age, state.heartbeat) {
    json.value(milliseconds(*age) / 1000);
  } else {
    json.null();
  }
  json.field("agentVersion", state.agentVersion).field("uptimeSeconds", state.uptime / kj::SECONDS);
}

}  // namespace postern::cli
