#include "host/client/local-connection.h"

#include <capnp/message.h>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"

namespace postern::client {

namespace {

capnp::Capability::Client bootstrapOf(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& system) {
  capnp::MallocMessageBuilder message(4);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return system.bootstrap(vatId);
}

}  // namespace

LocalConnection::LocalConnection(kj::Own<kj::AsyncCapabilityStream> streamToOwn)
    : stream(kj::mv(streamToOwn)),
      network(*stream, /* maxFdsPerMessage */ 1, capnp::rpc::twoparty::Side::CLIENT, rpcReaderOptions()),
      system(capnp::makeRpcClient(network)),
      peer(bootstrapOf(system)) {
  system.setFlowLimit(limits::RPC_FLOW_WORDS);
}

}  // namespace postern::client
