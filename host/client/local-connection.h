#pragma once
// LocalConnection: RPC with a process of Postern on this machine, over a Unix socket that may carry one descriptor a
// message. The one place of this library that sets limits on such a connection.
//
// When the other end goes away, calls in progress fail with DISCONNECTED. Destroying it cancels them at both ends.
// Lives on one loop; whoever has calls of the bootstrap under way outlives neither.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

namespace postern::client {

class LocalConnection {
 public:
  explicit LocalConnection(kj::Own<kj::AsyncCapabilityStream> stream);
  KJ_DISALLOW_COPY(LocalConnection);

  capnp::Capability::Client bootstrap() { return peer; }

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
  capnp::Capability::Client peer;
};

}  // namespace postern::client
