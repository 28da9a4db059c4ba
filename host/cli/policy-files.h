#pragma once
// Policy files as postern's own commands read them, without posternd.

#include "host/cli/arguments.h"
#include "protocol/policy/load.h"

namespace postern::cli {

// A policy file with its text.
struct PolicyFile {
  kj::String path;
  kj::String text;
};

// The named file, or all *.toml of the named folder. Ends the command (CommandFailure) if it cannot be read.
void readPolicy(kj::StringPtr path, kj::Vector<PolicyFile>& out);

policy::LoadResult loadPolicy(kj::ArrayPtr<const PolicyFile> files);

}  // namespace postern::cli
