#pragma once
// LocalRpc: Cap'n Proto between two of the host's own processes over a Unix socket, with descriptors beside messages.
// The one place of the host that builds an RPC system, with every limit set: size of a message, nesting, words of calls
// in progress, one descriptor a message (but see Descriptors::ANY). Lives on the loop of its I/O provider.
//
// A peer that floods is not read further while its calls are in progress; one that goes away is seen by
// onDisconnect(), and everything that was done for it is cancelled, in the turns of the loop that follow, where the
// method has said context.allowCancellation(): Cap'n Proto 0.9 carries out any other to its end, whoever is left.

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <sys/types.h>

#include "host/control/control.capnp.h"
#include "host/local-rpc/passed-sockets.h"

namespace postern::host {

// Of calls that one local peer has in progress.
constexpr uint64_t LOCAL_FLOW_WORDS = uint64_t(1) << 17;
// A message, in either direction: an end that takes no larger one sends none.
constexpr uint64_t LOCAL_MESSAGE_WORDS = LOCAL_FLOW_WORDS / 4;
// On the control socket: 4 MiB, so that listVms() says all of as many VMs as the status board has room for.
constexpr uint64_t CONTROL_MESSAGE_WORDS = uint64_t(1) << 19;

// Between posternd and a session process, which lists up to 4,096 channels in one.
constexpr uint64_t SESSION_MESSAGE_WORDS = CONTROL_MESSAGE_WORDS;

// Which descriptors a LocalRpc takes out of its peer's messages. Others count as none, and are closed elsewhere, and so
// is the connection, in which some may lie unread (transport/close-elsewhere.h).
enum class Descriptors : uint8_t {
  NONE,
  ANY,  // of a peer that is trusted: posternd, by its sessions and its callers; and several in a message
};
// A caller's socket, and a mirror for each of the services that it was granted.
constexpr unsigned MAX_TRUSTED_DESCRIPTORS = 20;

class LocalRpc {
 public:
  // The end that was connected to, or introduced: `bootstrap` is what the peer gets. `passed`, beside
  // Descriptors::NONE: sockets are taken, by its take().
  LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket, capnp::Capability::Client bootstrap,
           uint64_t maxMessageWords = LOCAL_MESSAGE_WORDS, uint64_t flowWords = LOCAL_FLOW_WORDS,
           Descriptors descriptors = Descriptors::NONE, kj::Maybe<kj::Own<PassedSockets>> passed = nullptr);
  // The end that connects.
  LocalRpc(kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd socket,
           uint64_t maxMessageWords = LOCAL_MESSAGE_WORDS, Descriptors descriptors = Descriptors::NONE);
  // Ends the connection for the peer, too, whoever else still holds a copy of the descriptor.
  ~LocalRpc() noexcept(false);
  KJ_DISALLOW_COPY(LocalRpc);

  capnp::Capability::Client peer();
  // The end that was connected to sees its peer go even when it does not read, because its calls are in progress.
  kj::Promise<void> onDisconnect();

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
};

// A descriptor on its way to another process, in a message of a LocalRpc.
schema::Descriptor::Client newDescriptor(kj::AutoCloseFd fd);
// The one that came, as one of our own; null: none came.
kj::Promise<kj::Maybe<kj::AutoCloseFd>> takeDescriptor(schema::Descriptor::Client descriptor);

// Two connected ends, close-on-exec.
struct SocketPair {
  kj::AutoCloseFd first, second;
};
SocketPair newSocketPair(int type);

// Who made the socket at the other end (SO_PEERCRED).
struct LocalPeer {
  uid_t uid;
  gid_t gid;
  pid_t pid;
};
LocalPeer localPeerOf(int socket);

}  // namespace postern::host
