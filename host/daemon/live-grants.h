#pragma once
// LiveGrants: the sockets that posternd has introduced callers to VMs by, so that it can cut them: when policy no
// longer allows what they are good for, when a VM is removed, when its session is gone. It keeps a copy of the
// session's end of each: shutting that down ends the connection for both, however stuck they are.
//
// A copy of a descriptor is not seen by its other holders, so the session ends a connection by shutting it down, too
// (LocalRpc does). One loop.

#include <capnp/common.h>
#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/map.h>
#include <kj/vector.h>

#include "host/daemon/local-callers.h"

namespace postern::host {

constexpr unsigned MAX_GRANTS_PER_USER = 64;

// An operation is reported when it is over, and its caller may have gone by then: the audit still names it.
constexpr auto GRANT_AFTERLIFE = 10 * kj::SECONDS;

// A service that a grant is good for.
struct GrantedService {
  kj::String service;  // its name
  kj::String rule;
  kj::String mirror;  // ServiceTerms::mirrorText()
};

// What a caller is granted of a VM.
struct Grantable {
  kj::Vector<kj::String> calls;
  kj::String rule;                     // which allowed the first of them
  kj::String path;                     // of the file calls; empty: there are none
  kj::Array<const capnp::word> files;  // what fileGrants() gave for them
  // One for each service.NAME of `calls`, as of when the session was told of it.
  kj::Vector<GrantedService> services;
};

struct GrantEntry {
  uint64_t id;
  kj::String vm;
  Grantable granted;
  kj::Own<const LocalCaller> caller;
};

class LiveGrants final : private kj::TaskSet::ErrorHandler {
 public:
  explicit LiveGrants(kj::UnixEventPort& port);
  ~LiveGrants() noexcept(false);
  KJ_DISALLOW_COPY(LiveGrants);

  // A user may have so many at a time.
  bool hasRoomFor(uid_t uid) const;
  uint64_t nextId() { return ++lastId; }
  // `socket` is the session's end; a copy is kept until either side closes it.
  void add(GrantEntry entry, int socket);
  // For reports of the session, which may come a moment after the caller has gone; null for one that has been over for
  // GRANT_AFTERLIFE.
  kj::Maybe<const GrantEntry&> find(uint64_t id) const;

  // Cuts those for which `allowed` says no, and says how many those were.
  unsigned cutUnless(kj::FunctionParam<bool(const GrantEntry&)> allowed);
  void forEach(kj::FunctionParam<void(const GrantEntry&)> what) const;
  size_t size() const;

 private:
  struct Live;
  kj::UnixEventPort& port;
  uint64_t lastId;
  kj::HashMap<uint64_t, kj::Own<Live>> live;
  kj::TaskSet tasks;

  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
