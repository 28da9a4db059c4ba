#pragma once
// Filling in control.capnp's Failure: the one way in which a request says why it was not carried out.

#include <kj/string.h>

#include "host/control/control.capnp.h"

namespace postern::host {

void setFailure(schema::Failure::Builder failure, schema::Failure::Kind kind, kj::StringPtr text);
// What the guest said, made printable and bounded.
void setFailure(schema::Failure::Builder failure, postern::schema::Refusal::Reader refusal);

}  // namespace postern::host
