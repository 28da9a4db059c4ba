#include "guest-agent/files/opener-user.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <unistd.h>

namespace postern::guest {

namespace {

kj::String nameOf(uid_t uid) {
  const struct passwd* user = getpwuid(uid);
  return user == nullptr ? kj::str("uid ", uid) : kj::str(user->pw_name);
}

kj::Array<gid_t> groupsOf(const struct passwd& user) {
  int count = NGROUPS_MAX;
  auto groups = kj::heapArray<gid_t>(size_t(count));
  if (getgrouplist(user.pw_name, user.pw_gid, groups.begin(), &count) < 0) count = 0;
  return kj::heapArray(groups.slice(0, size_t(count)));
}

kj::OneOf<OpenerUser, kj::String> agentsOwn(const RunAs& agent, const UserKey& key) {
  if (geteuid() != 0) return OpenerUser{nameOf(geteuid()), nullptr, nullptr};
  if (agent.change) return OpenerUser{nameOf(agent.uid), Identity{agent.uid, agent.gid}, nullptr};
  return kj::str("the ", key.holder, " names no ", key.key,
                 ", and this guest has no unprivileged user for its agent; add ", key.key, " = \"...\" to the ",
                 key.holder, ", or create one with useradd --system ", DEFAULT_AGENT_USER);
}

}  // namespace

// T71
kj::OneOf<OpenerUser, kj::String> findOpenerUser(kj::StringPtr name, const RunAs& agent, const UserKey& key) {
  if (name.size() == 0) return agentsOwn(agent, key);
  const struct passwd* user = getpwnam(name.cStr());
  if (user == nullptr) {
    return kj::str("there is no user '", name, "' in this guest, whom the ", key.holder, "'s ", key.key, " names");
  }
  if (user->pw_uid == geteuid() && user->pw_uid != 0) return OpenerUser{kj::str(name), nullptr, nullptr};
  if (geteuid() != 0) {
    return kj::str("the ", key.holder, " says ", key.key, " = \"", name, "\", and the agent runs as ",
                   nameOf(geteuid()), ", who cannot become anybody else; start it as root, or change the ", key.holder);
  }
  if (user->pw_uid == 0 && name != "root") {
    return kj::str("the user '", name, "' has root's uid; name \"root\" in the ", key.holder, " if that is meant");
  }
  return OpenerUser{kj::str(name), Identity{user->pw_uid, user->pw_gid}, groupsOf(*user)};
}

}  // namespace postern::guest
