#include "guest-agent/systemd-library.h"

#include <dlfcn.h>

namespace postern::guest {

void* findInSystemdLibrary(kj::StringPtr name) {
  static void* const library = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : dlsym(library, name.cStr());
}

}  // namespace postern::guest
