#include "guest-agent/offered-channel.h"

#include <kj/debug.h>

namespace postern::guest {

kj::Promise<void> refuseOffer(Session& session, BulkError error, schema::Refusal::Builder out) {
  if (error == BulkError::TOO_MANY) {
    fill(out, schema::Refusal::Reason::BUSY, "this guest has as many channels open as it may; wait for one to end");
    return kj::READY_NOW;
  }
  session.breakOff(CloseCode::PROTOCOL_ERROR, describe(error));
  return KJ_EXCEPTION(DISCONNECTED, "the offered channel breaks the rules");
}

}  // namespace postern::guest
