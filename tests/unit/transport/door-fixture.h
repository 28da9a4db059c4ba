#pragma once
// Doors for tests: a listener whose connections the test makes up, peer address included, and one on a real socket.

#include <queue>

#include "protocol/limits.h"
#include "tests/unit/transport/connection-fixture.h"
#include "transport/admission.h"

namespace postern {

// Gives out what the test puts in, as a vsock listener would.
class FakeListener final : public Listener {
 public:
  // The peer's end of a new connection from there.
  kj::AutoCloseFd connectFrom(PeerAddress peer) {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    add(Connection{TransportKind::VSOCK, DescriptorKind::SOCKET, peer, kj::AutoCloseFd(fds[0])});
    return kj::AutoCloseFd(fds[1]);
  }
  void add(Connection connection) {
    waiting.push(kj::mv(connection));
    KJ_IF_MAYBE (waiter, pending) (*waiter)->fulfill();
  }

  kj::Promise<void> whenPending() override {
    KJ_REQUIRE(!isBroken, "made to fail by the test");
    if (!waiting.empty()) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    pending = kj::mv(paf.fulfiller);
    return kj::mv(paf.promise);
  }
  kj::Maybe<Connection> tryAccept() override {
    if (waiting.empty()) return nullptr;
    auto connection = kj::mv(waiting.front());
    waiting.pop();
    return kj::mv(connection);
  }
  ListenerCounters counters() const override { return {}; }

  bool isBroken = false;

 private:
  std::queue<Connection> waiting;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> pending;
};

struct DoorFixture : ConnectionFixture {
  Admission admission{timer};
  FakeListener listener;

  // All places but `free`, held by VMs of their own.
  kj::Vector<kj::Own<Admission::HalfOpen>> occupy(unsigned free) {
    kj::Vector<kj::Own<Admission::HalfOpen>> held;
    while (admission.halfOpen() < limits::MAX_HALF_OPEN - free) {
      auto result = admission.admit(now(admission.whenSlot()), kj::str("other", held.size()), SourceClass::ORDINARY);
      held.add(kj::mv(result.get<kj::Own<Admission::HalfOpen>>()));
    }
    return held;
  }
};

// CIDs from 3 to 99 are VMs of that name.
inline kj::Maybe<kj::String> vmOfCid(const PeerAddress& peer) {
  auto cid = peer.get<VsockPeer>().cid;
  if (cid < 3 || cid > 99) return nullptr;
  return kj::str("vm", cid);
}

}  // namespace postern
