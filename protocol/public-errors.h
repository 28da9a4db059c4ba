#pragma once
// The one place that decides what an exception says to a peer.
//
// KJ exceptions cross RPC verbatim: text, file, line, macro arguments. PublicVatNetwork stands between the RPC system
// and the wire and rewrites every exception on its way out (Return, Resolve, Abort, Disembargo's failures) to the fixed
// text of its type. What a caller must branch on is in the schema; the full text goes to this end's log by `observe`.
// Standing there, it also tells RpcLoad what passes, and waits for it.

#include <capnp/rpc-twoparty.h>
#include <kj/exception.h>
#include <kj/function.h>

#include "protocol/rpc-load.h"

namespace postern {

// The fixed text of an exception type.
kj::StringPtr publicText(kj::Exception::Type type);

class PublicVatNetwork final : public capnp::TwoPartyVatNetworkBase {
 public:
  // `observe` gets the text of each exception before it is replaced. `inner` and `load` outlive this.
  PublicVatNetwork(capnp::TwoPartyVatNetwork& inner, RpcLoad& load, kj::Function<void(kj::StringPtr)> observe);
  ~PublicVatNetwork() noexcept(false);
  KJ_DISALLOW_COPY(PublicVatNetwork);

  kj::Maybe<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> connect(
      capnp::rpc::twoparty::VatId::Reader hostId) override;
  kj::Promise<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> accept() override;

  // When the RPC system has given its connection up. (The inner network would say so when nobody holds the connection
  // any more; this does.) Once.
  kj::Promise<void> onShutdown() { return kj::mv(over.promise); }

 private:
  class FilteredConnection;
  class FilteredMessage;

  capnp::TwoPartyVatNetwork& inner;
  RpcLoad& load;
  kj::Function<void(kj::StringPtr)> observe;
  // One, as the inner network has one: the RPC system tells connections apart by their address.
  kj::Maybe<kj::Own<FilteredConnection>> filtered;
  kj::PromiseFulfillerPair<void> over = kj::newPromiseAndFulfiller<void>();

  kj::Own<capnp::TwoPartyVatNetworkBase::Connection> filter(
      kj::Own<capnp::TwoPartyVatNetworkBase::Connection> connection);
};

}  // namespace postern
