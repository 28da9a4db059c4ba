#include "host/health/reason.h"

namespace postern::host {

namespace {

struct Row {
  Reason reason;
  kj::StringPtr name;
  kj::StringPtr text;
};

const Row ROWS[] = {
    {Reason::NOT_ENROLLED, "not-enrolled", "it is not enrolled yet"},
    {Reason::NEVER_SEEN, "never-seen", "its agent has not connected yet"},
    {Reason::SHUT_DOWN, "shut-down", "it said that it shuts down"},
    {Reason::RESTARTING, "restarting", "it restarts"},
    {Reason::SUSPENDED, "suspended", "it said that it suspends"},
    {Reason::AGENT_STOPPED, "agent-stopped", "its agent was stopped in good order"},
    {Reason::PAUSED, "paused", "it is paused on purpose"},
    {Reason::VM_OFF, "vm-off", "it is switched off"},
    {Reason::MOVED, "moved", "it was moved to another host"},
    {Reason::ON_TIME, "on-time", "its heartbeats come on time"},
    {Reason::CONNECTED, "connected", "it has just connected"},
    {Reason::RECOVERING, "recovering", "its heartbeats come again"},
    {Reason::LATE, "late", "its heartbeat is late"},
    {Reason::STARVED, "starved", "its agent gets too little CPU time"},
    {Reason::STOPPING, "stopping", "it is going down"},
    {Reason::FROZEN, "frozen", "its file systems are frozen"},
    {Reason::RESUMED, "resumed", "it runs again after a gap"},
    {Reason::QUARANTINED, "quarantined", "it lives and policy holds it apart"},
    {Reason::LINK_LOST, "link-lost", "its link was cut without a goodbye"},
    {Reason::PORT_CLOSED, "port-closed", "nobody in it has Postern's port open; is postern-agent running in it?"},
    {Reason::PROTOCOL_ERROR, "protocol-error", "its link was closed for breaking the protocol"},
    {Reason::SESSION_DIED, "session-died", "the host's process for it ended"},
    {Reason::SILENT, "silent", "no heartbeat comes; is it hung, or postern-agent killed?"},
    {Reason::KEYS_REJECTED, "keys-rejected", "somebody in it knocks with keys that are not its own; enrol it anew?"},
    {Reason::CLONED_IDENTITY, "cloned-identity", "two agents use its identity; enrol the copy as a VM of its own"},
    {Reason::ROLLED_BACK, "rolled-back", "it runs an older snapshot, which the policy refuses"},
};
constexpr size_t ROW_COUNT = sizeof(ROWS) / sizeof(ROWS[0]);

const Row* find(Reason reason) {
  for (auto& row : ROWS) {
    if (row.reason == reason) return &row;
  }
  return nullptr;
}

}  // namespace

kj::StringPtr colourName(Colour colour) {
  switch (colour) {
    case Colour::GRAY:
      return "gray";
    case Colour::GREEN:
      return "green";
    case Colour::YELLOW:
      return "yellow";
    case Colour::RED:
      return "red";
  }
  return "unknown";
}

kj::StringPtr reasonName(Reason reason) {
  auto row = find(reason);
  return row == nullptr ? kj::StringPtr("unknown") : row->name;
}

kj::StringPtr describe(Reason reason) {
  auto row = find(reason);
  return row == nullptr ? kj::StringPtr("for a reason that is newer than this program") : row->text;
}

kj::Maybe<Colour> colourFromCode(uint8_t untrustedCode) {
  if (untrustedCode > uint8_t(Colour::RED)) return nullptr;
  return Colour(untrustedCode);
}

Reason reasonFromCode(uint16_t untrustedCode) {
  auto row = find(Reason(untrustedCode));
  return row == nullptr ? Reason::UNKNOWN : row->reason;
}

kj::ArrayPtr<const Reason> allReasons() {
  static const auto all = [] {
    auto reasons = kj::heapArrayBuilder<const Reason>(ROW_COUNT);
    for (auto& row : ROWS) reasons.add(row.reason);
    return reasons.finish();
  }();
  return all;
}

}  // namespace postern::host
