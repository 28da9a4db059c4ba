#pragma once
// GuestServer: what the agent serves to the host. Each call is decided by the guest's policy when it is made, for the
// caller that the host vouches for; a caller whose description breaks the rules (power/caller-text.h) is nobody, and is
// denied everything.

#include <kj/memory.h>

#include "guest-agent/agent/guest-policy.h"
#include "guest-agent/files/file-service.h"
#include "guest-agent/info/info-service.h"
#include "guest-agent/power/power-service.h"
#include "guest-agent/services/channel-service.h"
#include "protocol/guest.capnp.h"
#include "protocol/keys.h"
#include "protocol/session.h"

namespace postern::guest {

// Takes the new keys that the host asks for (guest.capnp's rekey()).
class Rekeying {
 public:
  struct NotDone {
    schema::Refusal::Reason reason;
    kj::String detail;
  };
  // Null: they are on the disk, and the session ends for the next one.
  virtual kj::Maybe<NotDone> rekey(const HostPublicKey& host, EnrolmentToken token) = 0;
};

// What calls of all sessions share; outlives them.
struct GuestServices {
  const kj::Own<const GuestPolicy>& policy;  // the one in force, at any time
  InfoService& info;
  PowerService& power;
  FileService& files;
  ChannelService& channels;
};

// As bootstrap of the session, which outlives the RPC system over it, as `rekeying` does.
schema::Guest::Client newGuestServer(const GuestServices& services, Rekeying& rekeying, Session& session);

}  // namespace postern::guest
