#pragma once
// postern-agent doctor: each link of the guest's half of the chain, from its configuration to an agent that runs, and
// what mends a broken one. Looks only: it opens no port and no socket of the link, which would disturb who has it.

#include "guest-agent/paths.h"
#include "transport/endpoint.h"

namespace postern::guest {

struct DoctorOptions {
  kj::StringPtr root;
  kj::Maybe<kj::StringPtr> config;
  kj::Maybe<Endpoint> connect;
  kj::Maybe<kj::StringPtr> bundleFile;
  kj::Maybe<kj::StringPtr> credentials;
  bool json = false;
};

// Prints what it finds; the exit status: 0, or 1 if a link is broken.
int runDoctor(const DoctorOptions& options);

}  // namespace postern::guest
