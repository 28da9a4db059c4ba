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
#include "protocol/session.h"

namespace postern::guest {

// What calls of all sessions share; outlives them.
struct GuestServices {
  const kj::Own<const GuestPolicy>& policy;  // the one in force, at any time
  InfoService& info;
  PowerService& power;
  FileService& files;
  ChannelService& channels;
};

// As bootstrap of the session, which outlives the RPC system over it.
schema::Guest::Client newGuestServer(const GuestServices& services, Session& session);

}  // namespace postern::guest
