#pragma once
// Channels, ports and their counters as people and programs see them.

#include <kj/array.h>
#include <kj/string.h>

#include "host/cli/table.h"
#include "host/control/control.capnp.h"
#include "transport/json-writer.h"

namespace postern::cli {

// A channel's id is 16 hexadecimal digits, in JSON, too: it is no number to count with, and JavaScript's have 53 bits.
kj::String channelIdText(uint64_t id);
// Of 1 to 16 digits; null: it is none.
kj::Maybe<uint64_t> parseChannelId(kj::StringPtr text);

using Channels = kj::ArrayPtr<const host::schema::Channel::Reader>;
using Ports = kj::ArrayPtr<const host::schema::Port::Reader>;
using RuleTraffics = kj::ArrayPtr<const host::schema::RuleTraffic::Reader>;

kj::String tableOf(Channels channels, Colours colours);
kj::String tableOf(RuleTraffics rules, Colours colours);
// `pace` has what each port has let out and in since a second ago; without it there are no such columns.
struct Pace {
  double outBytes;
  double inBytes;
};
kj::String tableOf(Ports ports, kj::ArrayPtr<const Pace> pace, Colours colours);

// Each an array.
void write(JsonWriter& json, Channels channels);
void write(JsonWriter& json, Ports ports);
void write(JsonWriter& json, RuleTraffics rules);

}  // namespace postern::cli
