#include "host/local-rpc/local-rpc.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "transport/receive.h"

namespace postern::host {

namespace {

using capnp::rpc::twoparty::Side;

capnp::ReaderOptions readerOptions(uint64_t maxMessageWords) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = maxMessageWords;
  options.nestingLimit = 32;
  return options;
}

// T92
// A stream over a socket that a stranger may send descriptors to: its reader gets stand-ins for sockets, where those
// are taken, and nothing else. All of the rest, and the socket itself, is closed elsewhere.
class StrangersStream final : public kj::AsyncCapabilityStream {
 public:
  StrangersStream(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socketParam,
                  kj::Maybe<kj::Own<PassedSockets>> passed)
      : socket(kj::mv(socketParam)), inner(provider.wrapUnixSocketFd(socket.get())), passed(kj::mv(passed)) {
    if (this->passed == nullptr) refuseDescriptors(socket);
  }

  kj::Promise<ReadResult> tryReadWithFds(void* buffer, size_t minBytes, size_t maxBytes, kj::AutoCloseFd* fdBuffer,
                                         size_t maxFds) override {
    return readOn(static_cast<kj::byte*>(buffer), minBytes, maxBytes, fdBuffer, maxFds, {0, 0});
  }
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override {
    return tryReadWithFds(buffer, minBytes, maxBytes, nullptr, 0).then([](ReadResult all) { return all.byteCount; });
  }
  kj::Promise<void> write(const void* buffer, size_t size) override { return inner->write(buffer, size); }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    return inner->write(pieces);
  }
  kj::Promise<void> writeWithFds(kj::ArrayPtr<const kj::byte> data,
                                 kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> moreData,
                                 kj::ArrayPtr<const int> fds) override {
    return inner->writeWithFds(data, moreData, fds);
  }
  kj::Promise<void> writeWithStreams(kj::ArrayPtr<const kj::byte>, kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>,
                                     kj::Array<kj::Own<AsyncCapabilityStream>>) override {
    KJ_UNIMPLEMENTED("descriptors travel, not streams");
  }
  kj::Promise<ReadResult> tryReadWithStreams(void*, size_t, size_t, kj::Own<AsyncCapabilityStream>*, size_t) override {
    KJ_UNIMPLEMENTED("descriptors travel, not streams");
  }
  kj::Promise<void> whenWriteDisconnected() override { return inner->whenWriteDisconnected(); }
  void shutdownWrite() override { inner->shutdownWrite(); }
  void abortRead() override { inner->abortRead(); }

 private:
  StrangersFd socket;
  kj::Own<kj::AsyncCapabilityStream> inner;
  kj::Maybe<kj::Own<PassedSockets>> passed;
  // Of one read of the system: as many as a message can bring, so that neither the kernel nor KJ has any to close.
  kj::AutoCloseFd came[MAX_ATTACHED_DESCRIPTORS];

  // Null: not taken.
  kj::AutoCloseFd standInFor(StrangersFd fd) {
    KJ_IF_MAYBE (taking, passed) {
      if (isSocket(fd)) return (*taking)->standInFor(kj::mv(fd));
    }
    return nullptr;
  }

  kj::Promise<ReadResult> readOn(kj::byte* buffer, size_t minBytes, size_t maxBytes, kj::AutoCloseFd* fdBuffer,
                                 size_t maxFds, ReadResult before) {
    if (maxBytes == 0) return before;
    return inner->tryReadWithFds(buffer, kj::min(minBytes, size_t(1)), maxBytes, came, kj::size(came))
        .then([=, this](ReadResult now) -> kj::Promise<ReadResult> {
          ReadResult all{before.byteCount + now.byteCount, before.capCount};
          for (size_t i = 0; i < now.capCount; ++i) {
            StrangersFd fd(kj::mv(came[i]));
            if (all.capCount == maxFds) continue;
            fdBuffer[all.capCount] = standInFor(kj::mv(fd));
            if (fdBuffer[all.capCount] != nullptr) ++all.capCount;
          }
          if (now.byteCount == 0 || now.byteCount >= minBytes) return all;
          return readOn(buffer + now.byteCount, minBytes - now.byteCount, maxBytes - now.byteCount, fdBuffer, maxFds,
                        all);
        });
  }
};

kj::Own<kj::AsyncCapabilityStream> wrap(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket,
                                        Descriptors descriptors, kj::Maybe<kj::Own<PassedSockets>> passed) {
  if (descriptors == Descriptors::NONE) {
    return kj::heap<StrangersStream>(provider, kj::mv(socket), kj::mv(passed));
  }
  return provider.wrapUnixSocketFd(socket.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
}

// In one message. An end takes so many; what it sends has no other bound.
unsigned maxDescriptors(Descriptors descriptors) {
  return descriptors == Descriptors::ANY ? MAX_TRUSTED_DESCRIPTORS : 1;
}

class CarriedDescriptor final : public schema::Descriptor::Server {
 public:
  explicit CarriedDescriptor(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}
  kj::Maybe<int> getFd() override { return fd.get(); }

 private:
  const StrangersFd fd;
};

}  // namespace

LocalRpc::LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, capnp::Capability::Client bootstrap,
                   uint64_t maxMessageWords, uint64_t flowWords, Descriptors descriptors,
                   kj::Maybe<kj::Own<PassedSockets>> passed)
    : stream(wrap(provider, kj::mv(socket), descriptors, kj::mv(passed))),
      network(*stream, maxDescriptors(descriptors), Side::SERVER, readerOptions(maxMessageWords)),
      system(network, kj::mv(bootstrap)) {
  system.setFlowLimit(flowWords);
}

LocalRpc::LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, uint64_t maxMessageWords,
                   Descriptors descriptors)
    : stream(wrap(provider, kj::mv(socket), descriptors, nullptr)),
      network(*stream, maxDescriptors(descriptors), Side::CLIENT, readerOptions(maxMessageWords)),
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
