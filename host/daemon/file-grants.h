#pragma once
// File calls in posternd: how they are decided for a path, and what a session gets to decide by: for each call the
// scope of all rules that speak of this caller, VM and call, and the limits of those rules (session-control.capnp).

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/function.h>

#include "host/session/session-control.capnp.h"
#include "protocol/policy/policy.h"

namespace postern::host {

// Of what one caller gets: it travels in one message of a LocalRpc (LOCAL_MESSAGE_WORDS), with room for the rest.
constexpr size_t MAX_FILE_GRANT_WORDS = size_t(24) << 10;

struct FileDecision {
  policy::Decision decision;
  // No rule is about the path, but one is about what lies below it: each entry is decided in the session.
  bool below = false;

  bool isGranted() const { return below || decision.isAllowed(); }
};

bool isFileCall(kj::StringPtr call);
// Any call; a file call has its path.
FileDecision decideFile(const policy::Policy& policy, const policy::Request& request);

// What a session decides by for those of `calls` that are file calls: a schema::Grant with the calls and scopes of
// `files` alone, in canonical form, so that the same rules give the same bytes. Empty if there is none. `request` holds
// caller, target and time.
kj::Array<const capnp::word> fileGrants(const policy::Policy& policy, policy::Request request,
                                        kj::ArrayPtr<const kj::String> calls);
// With the limits that those rules have now.
void setFileGrants(schema::Grant::Builder grant, kj::ArrayPtr<const capnp::word> files, const policy::Policy& policy);
// The rules that allow something.
void forEachRule(kj::ArrayPtr<const capnp::word> files, kj::FunctionParam<void(kj::StringPtr)> what);
// Whether the rules for this call say `special`.
bool allowsSpecial(kj::ArrayPtr<const capnp::word> files, kj::StringPtr call);

}  // namespace postern::host
