#include "guest-agent/agent/run-as.h"

#include <pwd.h>
#include <unistd.h>

namespace postern::guest {

kj::OneOf<RunAs, RunAsError> findRunAs(kj::Maybe<kj::StringPtr> configured) {
  RunAs same{geteuid(), getegid(), false, {}};
  auto name = configured.orDefault(DEFAULT_AGENT_USER);
  const struct passwd* user = getpwnam(name.cStr());
  if (configured != nullptr) {
    if (user == nullptr) {
      return RunAsError{kj::str("there is no user '", name, "'; create it (useradd --system ", name,
                                ") or change `user` in [agent]")};
    }
    if (user->pw_uid != same.uid && same.uid != 0) {
      return RunAsError{kj::str("only root can run the agent as '", name, "'; start it as root or remove `user`")};
    }
  }
  if (same.uid != 0) return kj::mv(same);
  if (user == nullptr) {
    same.warning = kj::str("there is no user '", name,
                           "', so the agent runs as root, in its sandbox; create one with useradd --system ", name);
    return kj::mv(same);
  }
  if (user->pw_uid == 0) return kj::mv(same);
  return RunAs{user->pw_uid, user->pw_gid, true, {}};
}

}  // namespace postern::guest
