#include "host/local-rpc/local-rpc.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

namespace postern::host {

namespace {

using capnp::rpc::twoparty::Side;

capnp::ReaderOptions readerOptions(uint64_t maxMessageWords) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = maxMessageWords;
  options.nestingLimit = 32;
  return options;
}

kj::Own<kj::AsyncCapabilityStream> wrap(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket) {
  return provider.wrapUnixSocketFd(socket.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
}

class CarriedDescriptor final : public schema::Descriptor::Server {
 public:
  explicit CarriedDescriptor(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}
  kj::Maybe<int> getFd() override { return fd.get(); }

 private:
  kj::AutoCloseFd fd;
};

}  // namespace

LocalRpc::LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, capnp::Capability::Client bootstrap,
                   uint64_t maxMessageWords, uint64_t flowWords)
    : stream(wrap(provider, kj::mv(socket))),
      network(*stream, /* maxFdsPerMessage */ 1, Side::SERVER, readerOptions(maxMessageWords)),
      system(network, kj::mv(bootstrap)) {
  system.setFlowLimit(flowWords);
}

LocalRpc::LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, uint64_t maxMessageWords)
    : stream(wrap(provider, kj::mv(socket))),
      network(*stream, /* maxFdsPerMessage */ 1, Side::CLIENT, readerOptions(maxMessageWords)),
      system(network, nullptr) {
  system.setFlowLimit(LOCAL_FLOW_WORDS);
}

LocalRpc::~LocalRpc() noexcept(false) {
  // A peer that is gone already makes this fail, and nothing is left to be done then.
  (void)kj::runCatchingExceptions([this]() { stream->shutdownWrite(); });
}

capnp::Capability::Client LocalRpc::peer() {
  capnp::MallocMessageBuilder message(4);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(network.getSide() == Side::CLIENT ? Side::SERVER : Side::CLIENT);
  return system.bootstrap(vatId);
}

kj::Promise<void> LocalRpc::onDisconnect() {
  auto over = network.onDisconnect();
  if (network.getSide() == Side::CLIENT) return over;  // what the peer said last is still to be read
  return over.exclusiveJoin(stream->whenWriteDisconnected());
}

schema::Descriptor::Client newDescriptor(kj::AutoCloseFd fd) {
  KJ_REQUIRE(fd != nullptr, "no descriptor");  // the connection would hang on it
  return kj::heap<CarriedDescriptor>(kj::mv(fd));
}

kj::Promise<kj::Maybe<kj::AutoCloseFd>> takeDescriptor(schema::Descriptor::Client descriptor) {
  auto fd = descriptor.getFd();
  return fd.then([descriptor = kj::mv(descriptor)](kj::Maybe<int> fd) -> kj::Maybe<kj::AutoCloseFd> {
    KJ_IF_MAYBE (f, fd) {
      int copy;
      KJ_SYSCALL(copy = fcntl(*f, F_DUPFD_CLOEXEC, 3));
      return kj::AutoCloseFd(copy);
    }
    return nullptr;
  });
}

SocketPair newSocketPair(int type) {
  int ends[2];
  KJ_SYSCALL(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
  return {kj::AutoCloseFd(ends[0]), kj::AutoCloseFd(ends[1])};
}

LocalPeer localPeerOf(int socket) {
  struct ucred peer;
  socklen_t size = sizeof(peer);
  KJ_SYSCALL(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size));
  return {peer.uid, peer.gid, peer.pid};
}

}  // namespace postern::host
