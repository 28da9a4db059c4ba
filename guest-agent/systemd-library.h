#pragma once
// libsystemd, where the guest has it: loaded when first asked for. So a guest without systemd needs none of it, and the
// process that speaks with the host, which never asks, does not have it in its memory.

#include <kj/string.h>

namespace postern::guest {

void* findInSystemdLibrary(kj::StringPtr name);

// A function by its C name; null where there is none. `Function` is what libsystemd's header declares.
template <typename Function>
Function* systemdFunction(kj::StringPtr name) {
  return reinterpret_cast<Function*>(findInSystemdLibrary(name));
}

}  // namespace postern::guest
