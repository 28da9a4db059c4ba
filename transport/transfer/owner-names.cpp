#include "transport/transfer/owner-names.h"

#include <grp.h>
#include <kj/array.h>
#include <pwd.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

namespace {

// Of one entry of the database; a group with more members than fit in it has no name here.
constexpr size_t ENTRY_BYTES = size_t(64) << 10;

kj::String bounded(const char* name) {
  kj::StringPtr text = name;
  return kj::str(text.size() <= MAX_OWNER_BYTES ? text : ""_kj);
}

kj::String askUser(uid_t uid) {
  auto buffer = kj::heapArray<char>(ENTRY_BYTES);
  passwd entry{};
  passwd* found = nullptr;
  getpwuid_r(uid, &entry, buffer.begin(), buffer.size(), &found);
  return bounded(found == nullptr ? "" : found->pw_name);
}
kj::String askGroup(gid_t gid) {
  auto buffer = kj::heapArray<char>(ENTRY_BYTES);
  group entry{};
  group* found = nullptr;
  getgrgid_r(gid, &entry, buffer.begin(), buffer.size(), &found);
  return bounded(found == nullptr ? "" : found->gr_name);
}
kj::Maybe<uid_t> askUserByName(kj::StringPtr name) {
  auto buffer = kj::heapArray<char>(ENTRY_BYTES);
  passwd entry{};
  passwd* found = nullptr;
  getpwnam_r(name.cStr(), &entry, buffer.begin(), buffer.size(), &found);
  if (found == nullptr) return nullptr;
  return found->pw_uid;
}
kj::Maybe<gid_t> askGroupByName(kj::StringPtr name) {
  auto buffer = kj::heapArray<char>(ENTRY_BYTES);
  group entry{};
  group* found = nullptr;
  getgrnam_r(name.cStr(), &entry, buffer.begin(), buffer.size(), &found);
  if (found == nullptr) return nullptr;
  return found->gr_gid;
}

template <typename Map, typename Id>
kj::StringPtr nameOf(Map& names, Id id, bool complete, size_t most, kj::String& last, kj::String (*ask)(Id)) {
  KJ_IF_MAYBE (name, names.find(id)) return *name;
  if (complete) return "";
  last = ask(id);
  if (names.size() >= most) return last;
  return names.insert(id, kj::mv(last)).value;
}

template <typename Map, typename Id>
kj::Maybe<Id> idOf(Map& ids, kj::StringPtr name, bool complete, size_t most, kj::Maybe<Id> (*ask)(kj::StringPtr)) {
  KJ_IF_MAYBE (id, ids.find(name)) return *id;
  if (complete) return nullptr;
  auto id = ask(name);
  if (ids.size() < most) ids.insert(kj::str(name), id);
  return id;
}

}  // namespace

void OwnerNames::readAll() {
  setpwent();
  while (users.size() < MAX_LISTED) {
    const passwd* entry = getpwent();
    if (entry == nullptr) break;
    // Of several with one number or one name the first counts, as for who asks the database.
    users.upsert(entry->pw_uid, bounded(entry->pw_name), [](kj::String&, kj::String&&) {});
    usersByName.upsert(kj::str(entry->pw_name), entry->pw_uid, [](auto&, auto&&) {});
  }
  endpwent();
  setgrent();
  while (groups.size() < MAX_LISTED) {
    const struct group* entry = getgrent();
    if (entry == nullptr) break;
    groups.upsert(entry->gr_gid, bounded(entry->gr_name), [](kj::String&, kj::String&&) {});
    groupsByName.upsert(kj::str(entry->gr_name), entry->gr_gid, [](auto&, auto&&) {});
  }
  endgrent();
  complete = true;
}

kj::StringPtr OwnerNames::user(uid_t uid) {
  return nameOf(users, uid, complete, MAX_REMEMBERED, last, askUser);
}
kj::StringPtr OwnerNames::group(gid_t gid) {
  return nameOf(groups, gid, complete, MAX_REMEMBERED, last, askGroup);
}
kj::Maybe<uid_t> OwnerNames::userByName(kj::StringPtr name) {
  return idOf(usersByName, name, complete, MAX_REMEMBERED, askUserByName);
}
kj::Maybe<gid_t> OwnerNames::groupByName(kj::StringPtr name) {
  return idOf(groupsByName, name, complete, MAX_REMEMBERED, askGroupByName);
}

}  // namespace postern::transfer
