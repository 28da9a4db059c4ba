#pragma once
// ServicePlan: what the broker decides about one connection to a service: what it leads to, and as whom.

#include <kj/one-of.h>

#include "guest-agent/agent/guest-policy.h"
#include "guest-agent/broker/broker-client.h"
#include "guest-agent/files/opener-user.h"
#include "guest-agent/services/channel-service.h"
#include "guest-agent/settings/services-settings.h"

namespace postern::guest {

struct ServicePlan {
  ServiceTarget target;
  // As whom a program runs or a Unix socket is connected to. Null: TCP, where it makes no difference.
  kj::Maybe<OpenerUser> user;

  // Equal for plans that are the same in every respect.
  kj::String identity() const;
};

// By the policy and the services that are in force, for the caller whom `callerText` names (power/caller-text.h).
// `agent` is whom the agent's process runs as.
kj::OneOf<ServicePlan, ServiceRefusal> planService(const GuestPolicy& policy, const ServicesSettings& services,
                                                   const RunAs& agent, kj::StringPtr service, kj::StringPtr callerText);

// "tcp:127.0.0.1:80" or the program's path, for people.
kj::String whereTo(const ServiceTarget& target);

// What the agent is told of it.
ExportedService exportOf(const ServiceTarget& target);

}  // namespace postern::guest
