#pragma once
// RpcConnection: the one place that builds an RPC system over a session, with every limit set.
//
// Limits (limits.h): size and segments of a message before it is allocated (message-assembler.h); words walked and
// depth of nesting while it is read; words of calls in progress; what lies unread or unfinished (rpc-load.h); no
// descriptors. Exceptions leave only as public text
// (public-errors.h).
//
// Destroyed before its session. When the session ends, calls in progress fail with DISCONNECTED.

#include <capnp/rpc-twoparty.h>

#include "protocol/public-errors.h"
#include "protocol/session.h"

namespace postern {

// What a reader of a peer's messages is allowed to cost.
capnp::ReaderOptions rpcReaderOptions();

class RpcConnection {
 public:
  // `bootstrap` is what the peer gets. `observe` gets the full text of exceptions that leave as public text.
  RpcConnection(Session& session, Role self, capnp::Capability::Client bootstrap,
                kj::Function<void(kj::StringPtr)> observe);
  KJ_DISALLOW_COPY(RpcConnection);

  // When RPC is over, though the session may go on: the peer, or this end, aborted it. Resolves once.
  kj::Promise<void> onDisconnect() { return publicNetwork.onShutdown(); }

  // The peer's bootstrap capability.
  capnp::Capability::Client peer() { return peerBootstrap; }

 private:
  capnp::TwoPartyVatNetwork network;
  RpcLoad load;
  PublicVatNetwork publicNetwork;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
  // Asked for at once: the RPC system's client side reads nothing before it has asked for something.
  capnp::Capability::Client peerBootstrap;
};

}  // namespace postern
