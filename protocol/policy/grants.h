#pragma once
// Grants: the short words of `enroll VM --grant ping,info,power` as policy for both ends. The texts are ordinary policy
// files, which a person can read, edit and remove.
//
//   ping, info, power, status     ping, info.*, power.*, status.read
//   power.restart, service.http   any call or pattern of a VM's, but not "*"
//   file.get:/srv/**              a file call needs a path (path-glob.h), behind the first colon
//   file:/srv/**                  file.*
//   file:/srv/www                 a path without a pattern: it and what lies below it
//   file:/srv/www:run-as=www-data as that user inside the guest; without it, the agent's own unprivileged user
//
// The host's rules let the principals ask; status.read is always among them, or they would not see the VM. The guest's
// rules let any caller on the host whom the host lets ask: who that is, is the host's to say.

#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/policy/policy.h"

namespace postern::policy {

struct GrantRequest {
  kj::StringPtr vm;
  kj::ArrayPtr<const kj::StringPtr> grants;      // each may be a list with commas
  kj::ArrayPtr<const kj::StringPtr> principals;  // user:NAME, group:NAME or host; at least one
};

struct Grants {
  kj::String hostPolicy;   // rules `grant-VM`, `grant-VM:2`...; one file of the host's policy
  kj::String guestPolicy;  // rules `grant`, `grant:2`...; one agent.toml
};

// Or one line: what is wrong and what to write instead. Both texts have been loaded once.
kj::OneOf<Grants, kj::String> writeGrants(const GrantRequest& request);

}  // namespace postern::policy
