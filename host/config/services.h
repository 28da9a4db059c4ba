#pragma once
// [service.NAME] of postern.toml, with its users looked up.

#include "host/config/config.h"
#include "protocol/policy/toml-text.h"

namespace postern::host {

// What is wrong goes to `lines`, each with the file's name in front; then what comes back is not to be used.
// `runsAs`: posternd's user.
kj::Vector<HostService> readHostServices(const policy::TomlEntry& entry, kj::StringPtr file, uid_t runsAs,
                                         kj::Vector<kj::String>& lines);

}  // namespace postern::host
