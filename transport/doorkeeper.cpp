#include "transport/doorkeeper.h"

#include <kj/debug.h>
#include <poll.h>

#include "protocol/limits.h"
#include "transport/accept-queue.h"

namespace postern {

namespace {

// Whether the peer has closed its end. Looks without reading.
bool isGivenUp(int socket) {
  pollfd look = {socket, POLLRDHUP, 0};
  int ready;
  KJ_SYSCALL(ready = ::poll(&look, 1, 0));
  return ready > 0;
}

SourceClass sourceClassOf(const PeerAddress& peer) {
  if (!peer.is<VsockPeer>()) return SourceClass::ORDINARY;
  return sourceClassOfVsockPort(peer.get<VsockPeer>().port);
}

}  // namespace

Doorkeeper::Doorkeeper(Listener& listener, Admission& admission, const kj::MonotonicClock& clock, PickVm pickVm)
    : listener(listener), admission(admission), clock(clock), pickVm(kj::mv(pickVm)) {}

kj::Promise<Doorkeeper::Outcome> Doorkeeper::next() {
  return kj::evalLater([this] { return listener.whenPending(); })
      .then([this] { return admission.whenSlot(); })
      .then([this](Admission::Slot slot) -> kj::Promise<Outcome> {
        KJ_IF_MAYBE (connection, acceptLiving()) return decide(kj::mv(*connection), kj::mv(slot));
        return next();  // which waits for another slot when this one is free again
      });
}

kj::Maybe<Connection> Doorkeeper::acceptLiving() {
  // As many as can have been waiting; who connects and leaves faster than this is not waited for.
  for (int i = 0; i < LISTEN_QUEUE; ++i) {
    auto accepted = listener.tryAccept();
    KJ_IF_MAYBE (connection, accepted) {
      if (isGivenUp(connection->fd)) continue;
    }
    return accepted;
  }
  return nullptr;
}

Doorkeeper::Outcome Doorkeeper::decide(Connection connection, Admission::Slot slot) {
  auto picked = pickVm(connection.peer);
  KJ_IF_MAYBE (vm, picked) {
    auto admitted = admission.admit(kj::mv(slot), *vm, sourceClassOf(connection.peer));
    KJ_IF_MAYBE (refusal, admitted.tryGet<Refusal>()) return TurnedAway{connection.peer, kj::mv(*vm), *refusal};
    return Visitor{kj::mv(connection), kj::mv(*vm), clock.now() + limits::HANDSHAKE_DEADLINE,
                   kj::mv(admitted.get<kj::Own<Admission::HalfOpen>>())};
  }
  return TurnedAway{connection.peer, nullptr, Stranger()};
}

}  // namespace postern
