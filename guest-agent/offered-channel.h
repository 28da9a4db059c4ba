#pragma once
// A bulk channel that the host offers with a call, and that the session does not take.

#include "guest-agent/verdict.h"
#include "protocol/session.h"

namespace postern::guest {

// The call's answer: `busy` for one above what there may be; what breaks the rules of bulk channels ends the session.
kj::Promise<void> refuseOffer(Session& session, BulkError error, schema::Refusal::Builder out);

}  // namespace postern::guest
