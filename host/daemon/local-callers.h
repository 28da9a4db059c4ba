#pragma once
// LocalCallers: who a uid of this host is, for policy: its name and groups. The user database may be a slow network
// directory, so it is asked in a thread of its own, and an answer counts for REMEMBERED.

#include <kj/async.h>
#include <kj/map.h>
#include <kj/refcount.h>
#include <kj/string.h>
#include <kj/thread.h>
#include <kj/timer.h>
#include <sys/types.h>

#include "protocol/policy/policy.h"

namespace postern::host {

constexpr auto REMEMBERED = 60 * kj::SECONDS;

struct LocalCaller final : public kj::AtomicRefcounted {
  uid_t uid = 0;
  kj::String user;  // empty if the uid has no name
  kj::Array<kj::String> groups;
  bool isAdministrator = false;  // root, or posternd's own user

  // "user:alice", or "uid:1234".
  kj::String name() const;
};

// As policy wants it; refers to `caller`.
class PolicyCaller {
 public:
  explicit PolicyCaller(const LocalCaller& caller);
  policy::HostCaller get() const;

 private:
  const LocalCaller& caller;
  kj::Array<kj::StringPtr> groups;
};

class LocalCallers {
 public:
  explicit LocalCallers(kj::Timer& timer);
  ~LocalCallers() noexcept(false);
  KJ_DISALLOW_COPY(LocalCallers);

  // Never fails: a uid that the database does not know has no name and no groups.
  kj::Promise<kj::Own<const LocalCaller>> find(uid_t uid);

 private:
  struct Known {
    kj::Own<const LocalCaller> caller;
    kj::TimePoint until;
  };
  struct Worker;

  kj::Timer& timer;
  kj::HashMap<uid_t, Known> known;
  kj::Own<Worker> worker;
};

}  // namespace postern::host
