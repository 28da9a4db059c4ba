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

kj::OneOf<OpenerUser, kj::String> agentsOwn(const RunAs& agent) {
  if (geteuid() != 0) return OpenerUser{nameOf(geteuid()), nullptr, nullptr};
  if (agent.change) return OpenerUser{nameOf(agent.uid), Identity{agent.uid, agent.gid}, nullptr};
  return kj::str(
      "the rule names no run-as, and this guest has no unprivileged user for its agent; add run-as = \"...\" "
      "to the rule, or create one with useradd --system ",
      DEFAULT_AGENT_USER);
}

}  // namespace

kj::OneOf<OpenerUser, kj::String> findOpenerUser(kj::StringPtr runAs, const RunAs& agent) {
  if (runAs.size() == 0) return agentsOwn(agent);
  const struct passwd* user = getpwnam(runAs.cStr());
  if (user == nullptr) {
    return kj::str("there is no user '", runAs, "' in this guest, whom the rule's run-as names");
  }
  if (user->pw_uid == geteuid() && user->pw_uid != 0) return OpenerUser{kj::str(runAs), nullptr, nullptr};
  if (geteuid() != 0) {
    return kj::str("the rule says run-as = \"", runAs, "\", and the agent runs as ", nameOf(geteuid()),
                   ", who cannot become anybody else; start it as root, or change the rule");
  }
  if (user->pw_uid == 0 && runAs != "root") {
    return kj::str("the user '", runAs, "' has root's uid; name \"root\" in the rule if that is meant");
  }
  return OpenerUser{kj::str(runAs), Identity{user->pw_uid, user->pw_gid}, groupsOf(*user)};
}

}  // namespace postern::guest
