#include "protocol/rpc-system.h"

#include <capnp/message.h>

#include "protocol/limits.h"

namespace postern {

namespace {

using capnp::rpc::twoparty::Side;

Side sideOf(Role role) {
  return role == Role::HOST ? Side::SERVER : Side::CLIENT;
}

capnp::Capability::Client bootstrapOf(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& system, Side side) {
  capnp::MallocMessageBuilder message(4);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(side);
  return system.bootstrap(vatId);
}

}  // namespace

// T26
capnp::ReaderOptions rpcReaderOptions() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = limits::RPC_TRAVERSAL_WORDS;
  options.nestingLimit = limits::RPC_NESTING;
  return options;
}

RpcConnection::RpcConnection(Session& session, Role self, capnp::Capability::Client bootstrap,
                             kj::Function<void(kj::StringPtr)> observe)
    : network(session.rpcStream(), /* maxFdsPerMessage */ 0, sideOf(self), rpcReaderOptions()),
      load(session, network),
      publicNetwork(network, load, kj::mv(observe)),
      system(publicNetwork, kj::mv(bootstrap)),
      peerBootstrap(bootstrapOf(system, sideOf(self == Role::HOST ? Role::GUEST : Role::HOST))) {
  system.setFlowLimit(limits::RPC_FLOW_WORDS);
}

}  // namespace postern
