#pragma once
// RealHost: the host's own programs in a folder of their own: a posternd with the sessions that it starts, as they are
// installed, and what a measurement asks them by. No root needed.

#include <kj/async-io.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include "host/client/control-client.h"
#include "host/paths.h"
#include "tests/bench/child-process.h"
#include "tests/support/temporary-folder.h"

namespace postern::bench {

class RealHost {
 public:
  // `io` outlives it.
  explicit RealHost(kj::AsyncIoContext& io);
  // Ends posternd and all of its sessions.
  ~RealHost() noexcept(false);
  KJ_DISALLOW_COPY(RealHost);

  const test::TemporaryFolder folder;
  const kj::String root;
  const host::Paths paths;

  // Starts posternd. What the folder holds then is what it knows.
  void start();
  pid_t posternd() const { return KJ_REQUIRE_NONNULL(daemon)->pid(); }
  // Of each VM whose session process runs.
  kj::Vector<pid_t> sessions() const;

  // When posternd answers.
  kj::Own<client::ControlClient> connect();
  // A socket to the VM's session, good for `call`; again until it is granted.
  kj::Own<client::VmClient> openVm(client::ControlClient& control, kj::StringPtr vm, kj::StringPtr call);
  // By `postern enroll`: registers a VM with a grant for this user. The path of its bundle.
  kj::String enroll(kj::StringPtr vm, kj::StringPtr transport, kj::StringPtr grant);

  // A path in the folder for a socket, a log, or another program's --root.
  kj::String path(kj::StringPtr name) const { return kj::str(root, '/', name); }
  // The end of what posternd and its sessions have written, for a failure's message.
  kj::String logged() const;

 private:
  kj::AsyncIoContext& io;
  kj::Maybe<kj::Own<ChildProcess>> daemon;
};

}  // namespace postern::bench
