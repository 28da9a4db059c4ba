#include "transport/service/acting-as.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace postern {

namespace {

// The system calls themselves, which change this thread alone; the C library's functions change every thread.
bool setGroups(kj::ArrayPtr<const gid_t> groups) {
  return syscall(SYS_setgroups, groups.size(), groups.begin()) == 0;
}
bool setEffectiveGroup(gid_t group) {
  return syscall(SYS_setresgid, gid_t(-1), group, gid_t(-1)) == 0;
}
bool setEffectiveUser(uid_t user) {
  return syscall(SYS_setresuid, uid_t(-1), user, uid_t(-1)) == 0;
}

kj::Array<gid_t> groupsOfThread() {
  int count = getgroups(0, nullptr);
  auto groups = kj::heapArray<gid_t>(size_t(kj::max(count, 0)));
  if (getgroups(count, groups.begin()) != count) abort();
  return groups;
}

}  // namespace

// T99
ActingAs::ActingAs(const Identity& identity, kj::ArrayPtr<const gid_t> groupsToHave)
    : user(geteuid()), group(getegid()), groups(groupsOfThread()) {
  if (setGroups(groupsToHave)) done = GROUPS;
  if (done == GROUPS && setEffectiveGroup(identity.gid)) done = GROUP;
  if (done == GROUP && setEffectiveUser(identity.uid)) done = USER;
  if (done == USER) return;
  failure = errno;
  restore();
}

ActingAs::~ActingAs() {
  restore();
}

void ActingAs::restore() {
  bool restored = (done < USER || setEffectiveUser(user)) && (done < GROUP || setEffectiveGroup(group)) &&
                  (done < GROUPS || setGroups(groups));
  if (!restored || geteuid() != user || getegid() != group) abort();
  done = NOTHING;
}

}  // namespace postern
