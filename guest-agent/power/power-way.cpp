#include "guest-agent/power/power-way.h"

#include <kj/debug.h>
#include <sys/stat.h>

namespace postern::guest {

kj::StringPtr actionName(PowerAction action) {
  switch (action) {
    case PowerAction::SHUTDOWN:
      return "shutdown"_kj;
    case PowerAction::RESTART:
      return "restart"_kj;
    case PowerAction::SUSPEND:
      return "suspend"_kj;
  }
  KJ_UNREACHABLE;
}

kj::StringPtr callName(PowerAction action) {
  switch (action) {
    case PowerAction::SHUTDOWN:
      return "power.shutdown"_kj;
    case PowerAction::RESTART:
      return "power.restart"_kj;
    case PowerAction::SUSPEND:
      return "power.suspend"_kj;
  }
  KJ_UNREACHABLE;
}

bool systemdRunsHere() {
  // sd_booted(3)'s test.
  struct stat info;
  return lstat("/run/systemd/system", &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace postern::guest
