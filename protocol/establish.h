#pragma once
// Establishing a session: from a link on which HELLOs were exchanged to a Session, by the Noise handshake and the
// CONFIRM and ACCEPT records. All of it before a deadline that the caller gives, counted from accept (serial: from link
// UP).
//
// An unauthenticated peer is told nothing but the close, whatever it did wrong. The host sends nothing but its
// handshake message before the guest's CONFIRM has decrypted: until then it does not know that the guest is live and
// has the keys.

#include <kj/async.h>
#include <kj/one-of.h>
#include <kj/timer.h>

#include "protocol/handshake.h"
#include "protocol/session.h"

namespace postern {

struct Uint128 {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const Uint128&) const = default;
};

// One more connection of a session, for a large transfer. The ticket was given over the primary.
struct BulkPurpose {
  uint64_t transfer;
  Uint128 ticket;
};

// What the guest says in CONFIRM (session.capnp). Authenticated, but the guest's word.
struct Confirmation {
  uint64_t features = 0;
  uint64_t sessionCounter = 0;
  Uint128 bootId;
  Uint128 agentInstance;
  kj::Maybe<BulkPurpose> bulk;  // null: the primary session
};

// What the host answers in ACCEPT.
struct Acceptance {
  uint64_t features = 0;
  kj::Maybe<LinkSecret> linkSecret;  // enrolment, and only there
};

struct TimedOut {};
struct BadConfirmation {};  // authentic CONFIRM or ACCEPT that does not make sense
// Why there is no session.
using EstablishFailure = kj::OneOf<LinkEnd, HandshakeRefusal, RecordError, CloseCode, TimedOut, BadConfirmation>;
kj::StringPtr describe(const EstablishFailure& failure);

// Guest ----------------------------------------------------------------------------------------------------------

struct GuestSession {
  kj::Own<Session> session;
  Acceptance acceptance;
  HostPublicKey host;  // enrolment: to be pinned
};
// `credentials` and `environment` outlive the promise. On failure the link is closed. The session counter in
// `confirmation` is on disk.
kj::Promise<kj::OneOf<GuestSession, EstablishFailure>> establishAsGuest(kj::Own<FrameLink> link,
                                                                        const GuestCredentials& credentials,
                                                                        const Confirmation& confirmation,
                                                                        kj::TimePoint deadline,
                                                                        const SessionEnvironment& environment);

// Host -----------------------------------------------------------------------------------------------------------

// An authenticated guest that waits for the host's decision. Dropping it closes the link without a word.
class IncomingSession {
 public:
  virtual ~IncomingSession() noexcept(false) {}
  virtual const Confirmation& confirmation() const = 0;
  virtual const GuestPublicKey& guest() const = 0;
  virtual bool isEnrolment() const = 0;
  // Sends ACCEPT. Once; not after refuse(). A link secret is given in an enrolment and nowhere else.
  virtual kj::Own<Session> accept(const Acceptance& acceptance) = 0;
  // Sends CLOSE with the reason, and closes.
  virtual kj::Promise<void> refuse(CloseCode code) = 0;
};
kj::Promise<kj::OneOf<kj::Own<IncomingSession>, EstablishFailure>> establishAsHost(
    kj::Own<FrameLink> link, HostKeyring& keyring, kj::TimePoint deadline, const SessionEnvironment& environment);

}  // namespace postern
