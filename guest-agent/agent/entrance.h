#pragma once
// Entrance: one attempt at a session with the host, from the transport to a session that may carry RPC. Each phase of
// an enrolment is on the disk before the next step (identity/pairing.h); a normal session's counter is, before CONFIRM.

#include <kj/async.h>
#include <kj/one-of.h>
#include <kj/timer.h>

#include "guest-agent/agent/links.h"
#include "guest-agent/identity/pairing.h"
#include "protocol/establish.h"

namespace postern::guest {

// From ACCEPT to COMMITTED: a write on the guest's disk and one on the host's.
constexpr auto COMMIT_DEADLINE = 10 * kj::SECONDS;

// The host was there and there is no session: a matter of keys, or of a host that is just stopping.
struct Refused {
  kj::String text;
};
// This guest's own disk.
struct Stuck {
  kj::String text;
};

// An enrolment is committed.
struct Entered {
  kj::Own<Session> session;
};

using Entry = kj::OneOf<Entered, NoLink, Refused, Stuck>;

class Entrance {
 public:
  // All outlive this. `confirmation` says all but the counter.
  Entrance(Links& links, Pairing& pairing, const Confirmation& confirmation, const SessionEnvironment& environment);
  KJ_DISALLOW_COPY(Entrance);

  // One at a time. Dropping the promise ends the attempt.
  kj::Promise<Entry> enter(Pairing::Attempt attempt);

 private:
  // Lives as long as its attempt: what establishAsGuest() borrows.
  struct State {
    Pairing::Attempt attempt;
    GuestCredentials credentials;
    Confirmation confirmation;
  };

  Links& links;
  Pairing& pairing;
  const Confirmation confirmation;
  const SessionEnvironment& environment;

  kj::Promise<Entry> handshake(State& state, kj::Own<FrameLink> link);
  kj::Promise<Entry> commit(Pairing::Attempt attempt, GuestSession established);
  Entry committed(Pairing::Attempt attempt, kj::Own<Session> session);
  Entry refused(Pairing::Attempt attempt, kj::StringPtr why);
};

}  // namespace postern::guest
