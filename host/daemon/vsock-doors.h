#pragma once
// VsockDoors: the listeners for VMs that come in by vsock: one a port that any VM names. Whose a connection is its
// context id says; one that is no VM's is closed unread, and told, damped by context id.
// One loop.

#include <kj/async-unix.h>
#include <kj/map.h>

#include "host/daemon/damper.h"
#include "transport/doorkeeper.h"

namespace postern::host {

class VsockDoors {
 public:
  class Handler {
   public:
    virtual kj::Maybe<kj::String> vmOfCid(uint32_t cid) = 0;
    virtual void vsockVisitor(Visitor visitor) = 0;
    // Every connection that was closed unread.
    virtual void vsockTurnedAway(const TurnedAway& peer) = 0;
    // Of those, one that is no VM's. `leftOut`: how many of its before that were not told.
    virtual void vsockStranger(const PeerAddress& peer, uint64_t leftOut) = 0;
    virtual void vsockDoorFailed(kj::StringPtr vm, kj::StringPtr text) = 0;
  };

  // Everything outlives this.
  VsockDoors(kj::UnixEventPort& port, Admission& admission, Handler& handler);
  ~VsockDoors() noexcept(false);
  KJ_DISALLOW_COPY(VsockDoors);

  // Listens on the port, for `vm` and whoever else names it. Tried again with the next call if it fails.
  void open(uint32_t number, kj::StringPtr vm);

 private:
  struct Door;

  kj::UnixEventPort& port;
  Admission& admission;
  Handler& handler;
  Damper strangers;
  kj::HashMap<uint32_t, kj::Own<Door>> doors;

  kj::Promise<void> serve(Door& door);
  void strange(const PeerAddress& peer);
};

}  // namespace postern::host
