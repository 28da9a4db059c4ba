#include "host/session/guest-call.h"

#include "host/control/failure.h"

namespace postern::host {

using Kind = schema::Failure::Kind;

kj::Promise<void> boundedCall(kj::Timer& timer, kj::Promise<void> call, kj::Duration deadline,
                              kj::Function<schema::Failure::Builder()> failure) {
  auto kept = kj::heap(kj::mv(failure));
  auto& place = *kept;
  auto late = timer.afterDelay(deadline).then([&place, deadline]() {
    setFailure(place(), Kind::TIMED_OUT, kj::str("no answer from the guest in ", deadline / kj::SECONDS, " s"));
  });
  return call
      .catch_([&place](kj::Exception&& e) {
        if (e.getType() == kj::Exception::Type::DISCONNECTED) {
          setFailure(place(), Kind::NOT_CONNECTED, "the link to the guest ended during the call");
        } else if (e.getType() == kj::Exception::Type::UNIMPLEMENTED) {
          setFailure(place(), Kind::REFUSED, "the guest's agent is older and does not know this call: update it");
        } else {
          setFailure(place(), Kind::FAILED, "the guest's agent failed; its log says why");
        }
      })
      .exclusiveJoin(kj::mv(late))
      .attach(kj::mv(kept));
}

}  // namespace postern::host
