#pragma once
// Configuration: what the broker goes by: the settings, services and policy of agent.toml, or, where the administrator
// has no agent.toml, the grants that were adopted from a bundle. Read whole or not at all: with any error the old one
// stays.

#include <kj/one-of.h>
#include <kj/string.h>

#include "guest-agent/agent/guest-policy.h"
#include "guest-agent/paths.h"
#include "guest-agent/settings/services-settings.h"
#include "guest-agent/settings/settings.h"

namespace postern::guest {

struct Configuration {
  Settings settings;
  ServicesSettings services;
  bool hasOwnFile = false;  // an agent.toml: grants of a bundle do not count then
  kj::String policyFile;    // which of the two; empty: neither
  kj::String policyText;
  kj::Own<const GuestPolicy> policy;
};

// `config`: --config, which must be there; else paths.config, which may be missing.
kj::OneOf<Configuration, PolicyErrors> readConfiguration(const Paths& paths, kj::Maybe<kj::StringPtr> config);

}  // namespace postern::guest
