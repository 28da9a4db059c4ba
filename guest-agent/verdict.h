#pragma once
// What the guest's policy says of a call, as the services ask it: they know neither rules nor callers. Whoever serves a
// caller binds him in.

#include <kj/function.h>
#include <kj/string.h>

#include "protocol/guest.capnp.h"
#include "protocol/transfer/file-order.h"

namespace postern::guest {

// What goes into a schema::Refusal with reason `denied`.
struct Denial {
  kj::String detail;      // for a person: that no rule allows it, or which denies it
  kj::String rule;        // the id of the rule that denied, or empty
  kj::String suggestion;  // what to write into agent.toml to allow it
};

// As the caller gets them, their texts bounded.
void fill(schema::Refusal::Builder out, const Denial& denial);
void fill(schema::Refusal::Builder out, schema::Refusal::Reason reason, kj::StringPtr detail);

// For a call by its dotted name, such as "power.restart". Null: it is allowed.
using Decide = kj::Function<kj::Maybe<Denial>(kj::StringPtr call)>;

// For an order about files.
using DecideFile = kj::Function<kj::Maybe<Denial>(const transfer::FileOrder& order)>;

}  // namespace postern::guest
