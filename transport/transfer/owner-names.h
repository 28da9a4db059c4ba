#pragma once
// OwnerNames: users and groups by number and by name, each asked for once. For one thread.
//
// A process that is going to be confined, and will not be able to ask the user database, calls readAll() before: then
// nothing is asked afterwards.

#include <kj/map.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::transfer {

class OwnerNames {
 public:
  OwnerNames() = default;
  KJ_DISALLOW_COPY(OwnerNames);

  // Everything that the database lists, of each at most MAX_LISTED.
  void readAll();

  // Empty: there is none, or one that is longer than MAX_OWNER_BYTES.
  kj::StringPtr user(uid_t uid);
  kj::StringPtr group(gid_t gid);
  kj::Maybe<uid_t> userByName(kj::StringPtr name);
  kj::Maybe<gid_t> groupByName(kj::StringPtr name);

 private:
  static constexpr size_t MAX_LISTED = 65536;
  // Of what a peer names: beyond that nothing is remembered.
  static constexpr size_t MAX_REMEMBERED = 4096;

  bool complete = false;
  kj::HashMap<uid_t, kj::String> users;
  kj::HashMap<gid_t, kj::String> groups;
  kj::HashMap<kj::String, kj::Maybe<uid_t>> usersByName;
  kj::HashMap<kj::String, kj::Maybe<gid_t>> groupsByName;
  kj::String last;  // what was not remembered
};

}  // namespace postern::transfer
