#pragma once
// VmState: what `postern status` shows of a VM, wherever it was learnt.

#include "host/board/board-vm.h"
#include "host/cli/table.h"
#include "host/control/control.capnp.h"
#include "transport/json-writer.h"

namespace postern::cli {

struct VmState {
  kj::String name;
  kj::String colour;                  // green, yellow, red, gray
  kj::String reason;                  // a word for programs
  kj::String explanation;             // a clause for people
  kj::Duration since;                 // for how long colour and reason have been these
  kj::Maybe<kj::Duration> heartbeat;  // since the last one
  kj::String agentVersion;
  kj::Duration uptime;  // of the guest

  bool saysTheSame(const VmState& other) const { return colour == other.colour && reason == other.reason; }
};

VmState stateOf(host::schema::VmStatus::Reader status);
VmState stateOf(const host::BoardVm& vm, kj::TimePoint now);

Tint tintOf(kj::StringPtr colour);
// As a table, with all of it printable.
kj::String tableOf(kj::ArrayPtr<const VmState> states, Colours colours);
// "web1: green (heartbeats on time)", for --watch in a pipe.
kj::String lineOf(const VmState& state);
// The fields of one VM's JSON object, which is open.
void writeFields(JsonWriter& json, const VmState& state);

}  // namespace postern::cli
