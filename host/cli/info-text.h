#pragma once
// What a guest says of itself, as people and as programs see it. All of it is the guest's word.

#include "protocol/guest.capnp.h"
#include "transport/json-writer.h"

namespace postern::cli {

// Printable, with newlines.
kj::String infoText(kj::StringPtr vm, schema::Info::Reader info);

// Fields of the object that is open: agentVersion, features, and for each of os, network, filesystems and users either
// its value, {"timedOutMs":...}, {"refused":{...}} or null if the host's policy does not let the caller ask.
void writeInfo(JsonWriter& json, schema::Info::Reader info);

}  // namespace postern::cli
