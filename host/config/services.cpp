#include "host/config/services.h"

#include <grp.h>
#include <pwd.h>

#include <vector>

namespace postern::host {

namespace {

constexpr int MAX_GROUPS = 1024;

kj::Maybe<ServiceUser> findUser(kj::StringPtr name) {
  std::vector<char> space(16 << 10);
  struct passwd entry;
  struct passwd* found = nullptr;
  if (getpwnam_r(name.cStr(), &entry, space.data(), space.size(), &found) != 0 || found == nullptr) return nullptr;
  std::vector<gid_t> groups(MAX_GROUPS);
  int count = MAX_GROUPS;
  if (getgrouplist(name.cStr(), found->pw_gid, groups.data(), &count) < 0) count = MAX_GROUPS;
  return ServiceUser{{found->pw_uid, found->pw_gid}, kj::heapArray(groups.data(), static_cast<size_t>(count))};
}

// What is wrong with its user, or whom it is to be.
kj::OneOf<kj::Maybe<ServiceUser>, kj::String> userOf(const ServiceTarget& target, uid_t runsAs) {
  bool isRoot = runsAs == 0;
  KJ_IF_MAYBE (name, target.user) {
    auto user = findUser(*name);
    KJ_IF_MAYBE (known, user) {
      if (!isRoot && known->identity.uid != runsAs) {
        return kj::str("'user' needs a posternd that runs as root; name the user whom posternd runs as");
      }
      if (!isRoot) return kj::Maybe<ServiceUser>();
      return kj::mv(user);
    }
    return kj::str("there is no user ", *name, " on this host");
  }
  return kj::Maybe<ServiceUser>();
}

}  // namespace

kj::Vector<HostService> readHostServices(const policy::TomlEntry& entry, kj::StringPtr file, uid_t runsAs,
                                         kj::Vector<kj::String>& lines) {
  kj::Vector<kj::String> problems;
  kj::Vector<HostService> services;
  for (auto& target : readServices(entry, problems)) {
    auto user = userOf(target, runsAs);
    KJ_IF_MAYBE (wrong, user.tryGet<kj::String>()) {
      problems.add(kj::str(entry.line, ": [service.", target.name, "]: ", *wrong));
      continue;
    }
    services.add(HostService{kj::mv(target), kj::mv(user.get<kj::Maybe<ServiceUser>>())});
  }
  for (auto& problem : problems) lines.add(kj::str(file, ':', problem));
  return services;
}

}  // namespace postern::host
